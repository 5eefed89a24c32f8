"""A chain of audit events without a service around it, and the ways to tamper with it behind the service's back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Executable, RowMapping, Table, insert, select

from app.audit.chain import ChainKeys
from app.audit.denials import DeniedAttempts
from app.audit.findings import Place, Verification
from app.audit.pruning import Pruning
from app.audit.sealer import Sealer
from app.audit.trail import Subject
from app.audit.verification import verify
from app.authz.builtin import BuiltinPolicyEngine
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.resources import ResourceRef, ResourceType
from app.db.engine import Database
from app.models import AuditChain, AuditCheckpoint, AuditEvent, AuditGap
from app.unit_of_work import WorkContext, open_system_work
from tests.support.database import behind, open_database
from tests.support.rows import BEGINNING

KEYS = ChainKeys("development")
EVENTS, HEADS, GAPS, CHECKPOINTS = (cast("Table", model.__table__) for model in (AuditEvent, AuditChain, AuditGap, AuditCheckpoint))


class Chain:
    """The chain of one organization."""

    def __init__(self, database: Database, organization_id: UUID | None = None, keys: ChainKeys = KEYS) -> None:
        self.database = database
        self.organization_id = organization_id or uuid4()
        self.keys = keys

    async def add(self, count: int, **columns: Any) -> None:
        """Events in which no column is empty, as if the service had written them; not sealed."""
        async with behind(self.database) as connection:
            await connection.execute(insert(EVENTS), [{**self.event(number), **columns} for number in range(count)])

    def event(self, number: int) -> dict[str, Any]:
        return {
            "id": new_id(),
            "occurred_at": BEGINNING + timedelta(microseconds=number),
            "organization_id": self.organization_id,
            "project_id": uuid4(),
            "actor_type": "USER",
            "actor_id": f"user-{number}",
            "on_behalf_of": "user:boss",
            "auth_method": "header",
            "action": "PROJECT_UPDATED",
            "outcome": "SUCCESS",
            "resource_type": "PROJECT",
            "resource_id": uuid4(),
            "ip": "203.0.113.7",
            "user_agent": "curl/8.5.0",
            "request_id": uuid4().hex,
            "correlation_id": "ördér-\U0001f40d",
            "details": {"number": number, "cost": 0.1, "text": 'ü"\\'},
        }

    async def seal(self) -> int:
        return await Sealer(self.database, self.keys).seal()

    async def write_checkpoints(self) -> int:
        return await Sealer(self.database, self.keys).write_checkpoints()

    async def prune(self, *chosen: ColumnElement[bool], at_most: int | None = None, is_sealed: bool = True) -> int:
        """What the service does, with the event that tells of it; that one is sealed, too, unless it shall wait."""
        context = WorkContext(self.database, BuiltinPolicyEngine(), DeniedAttempts())
        async with open_system_work(context, "a test", self.organization_id) as work:
            work.session.use_jobs_role()
            event_id = new_id()
            pruning = Pruning(work.session, self.keys, self.organization_id, event_id)
            count = await (pruning.prune(*chosen) if at_most is None else pruning.prune_oldest(at_most, *chosen))
            subject = Subject(ResourceRef(ResourceType.ORGANIZATION, self.organization_id), self.organization_id)
            work.record_told(AuditAction.AUDIT_PRUNED, subject, {"pruned": count}, event_id=event_id)
        if is_sealed:
            await self.seal()
        return count

    async def rotate(self, count: int = 10) -> ChainKeys:
        """Seal that many events more with a new key; returns what somebody has who has learned the old one."""
        leaked, self.keys = self.keys, ChainKeys("new", ["development"])
        await self.add(count)
        assert await self.seal() == count
        assert await self.broken_at() is None
        return leaked

    async def gaps(self) -> list[tuple[int, int]]:
        """First and last position of each."""
        return [(gap["first_position"], gap["last_position"]) for gap in await self.rows(GAPS)]

    async def verify(self, from_position: int = 1, known: Place | None = None) -> Verification:
        return await verify(self.database, self.keys, self.organization_id, from_position=from_position, known=known)

    async def broken_at(self, **options: Any) -> tuple[int, str] | None:
        """The position and the kind of the first break."""
        found = (await self.verify(**options)).first_break
        return (found.position, found.kind.value) if found is not None else None

    async def rows(self, table: Table = EVENTS) -> list[RowMapping]:
        """What stands in a table for this organization, as the owner sees it."""
        async with behind(self.database) as connection:
            order = table.c["position" if "position" in table.c else "first_position"]
            of_it = select(table).where(table.c.organization_id == self.organization_id).order_by(order)
            return list((await connection.execute(of_it)).mappings().all())

    async def tamper(self, *statements: Executable) -> None:
        """Do something behind the service's back, as the owner of the tables."""
        async with behind(self.database) as connection:
            for statement in statements:
                await connection.execute(statement)


@asynccontextmanager
async def open_chain(database_url: str, count: int = 10) -> AsyncIterator[Chain]:
    """A chain with that many sealed events and a checkpoint at its end."""
    async with open_database(database_url) as database:
        chain = Chain(database)
        if count:
            await chain.add(count)
            assert await chain.seal() == count
            assert await chain.write_checkpoints() == 1
        yield chain
