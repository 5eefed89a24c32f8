"""Lists look their rows up by index: no list reads a table from end to end, on either database."""

from typing import Any

import pytest
from sqlalchemy import event, select

from app.authz.builtin import BuiltinPolicyEngine
from app.core.actors import Actor, ActorType, Asker
from app.core.clock import now
from app.core.permissions import Action
from app.db.functions import unindexed
from app.models import Document
from tests.support import rows
from tests.support.database import OWNER, as_role, open_database
from tests.support.rows import Rows

pytestmark = pytest.mark.anyio

ENGINE = BuiltinPolicyEngine()
ASKER = Asker(Actor(ActorType.USER, "u"))
TENANTS, EACH = 100, 20


def many_documents() -> Rows:
    told: Rows = []
    for number in range(TENANTS):
        home, home_rows = rows.organization(f"tenant-{number}")
        project, project_rows = rows.project(home)
        told += home_rows + project_rows
        for _ in range(EACH):
            told += rows.document(project)[1][:1]
    return told


async def test_a_list_is_found_by_index(database_url: str) -> None:
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        sent.append((statement, parameters))

    async with open_database(as_role(database_url, OWNER)) as database:  # whose plans are not about policies
        await rows.write(database, many_documents())
        async with database.open_read() as connection:
            await connection.exec_driver_sql("ANALYZE")
            event.listen(database.reader.sync_engine, "before_cursor_execute", note)
            visible = ENGINE.visible_rows(Document, Action.DOCUMENT_READ, ASKER)
            statement = select(Document.id).where(visible).order_by(unindexed(Document.id)).limit(20)
            await connection.execute(statement, dict(ENGINE.asking(ASKER, now())))
            ((text, parameters),) = sent
            if not database.is_sqlite:
                await connection.exec_driver_sql("SET enable_seqscan = off")  # so few rows would be read whole otherwise
            explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            plan = [str(row[-1]).strip() for row in await connection.exec_driver_sql(f"{explain} {text}", parameters)]
    assert any("MULTI-INDEX OR" in step or "BitmapOr" in step for step in plan), plan
    assert not any(step.startswith("SCAN documents") or "Seq Scan on documents" in step for step in plan), plan
