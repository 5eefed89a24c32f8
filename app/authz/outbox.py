"""The outbox: every change of a grant or a group's member is written down with it, and told to OpenFGA once it is durable.

Nobody has to think of it: the session itself sees each statement that passes the tenant fence.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from sqlalchemy import Delete, Row, Table, Update, delete, event, func, insert, select
from sqlalchemy.engine import Result
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import ORMExecuteState, Session

from app.authz.openfga_terms import MAX_WRITES, OpenFGADownError, OpenFGAError
from app.authz.tuples import TUPLE_OF, RelationshipTuple, TupleKey
from app.core.clock import now
from app.db.engine import Database
from app.db.tenancy import FencedSession
from app.models import UnsentTuple

if TYPE_CHECKING:
    from app.authz.openfga_client import OpenFGAClient

_log = logging.getLogger(__name__)

WRITE: Final = "write"
DELETE: Final = "delete"
SESSION_KEY: Final = "outbox"
_IS_CHANGED: Final = "outbox_is_changed"
_UNSENT: Final = cast("Table", UnsentTuple.__table__)
_CHANGEABLE: Final = frozenset({"expires_at"})
# Any fixed number: the first half of the locks on which senders of one organization take turns.
_LOCK: Final = 1_907_264_551


class Outbox:
    """Sends what is written down, organization by organization, in order. Any number of processes may send at once."""

    def __init__(self, database: Database, client: "OpenFGAClient") -> None:
        self._database = database.for_jobs  # what concerns every tenant is read by who sees every tenant
        self._client = client
        self._awake = asyncio.Event()
        self._stuck: set[UUID] = set()

    def wake(self) -> None:
        """Say that there may be something to send."""
        self._awake.set()

    async def wait(self, seconds: float) -> None:
        """Until somebody says so, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._awake.wait()
        except TimeoutError:
            return
        finally:
            self._awake.clear()

    async def lag_seconds(self) -> float:
        """How old the oldest change is that waits to be sent; 0 when none does."""
        async with self._database.open_read() as connection:
            oldest = (await connection.execute(select(_UNSENT.c.created_at).order_by(_UNSENT.c.seq).limit(1))).scalar_one_or_none()
        return max((now() - oldest).total_seconds(), 0) if oldest is not None else 0

    async def send(self) -> int:
        """Send everything there is now; returns how many changes were sent. What OpenFGA does not take stays, and is tried again."""
        async with self._database.open_read() as connection:
            waiting = (await connection.execute(select(_UNSENT.c.organization_id).distinct())).scalars().all()
        sent = 0
        for organization_id in waiting:
            try:
                while (count := await self._send_batch(organization_id)) > 0:
                    sent += count
            except OpenFGADownError as error:
                self._note_stuck(organization_id, error)
                break  # the others would wait for the same server
            except OpenFGAError as error:
                self._note_stuck(organization_id, error)
            else:
                self._stuck.discard(organization_id)
        return sent

    async def _send_batch(self, organization_id: UUID) -> int:
        """Rows are removed only after OpenFGA has what they say, and while nobody else sends for this organization.

        Locks on rows would not do: two senders could share an organization, and a tuple be written again after the other has deleted it.
        """
        if self._database.is_sqlite:
            with _turn_by_file(self._database.url.database or "") as is_ours:
                return await self._send_with_short_transactions(organization_id) if is_ours else 0
        async with self._database.writer.begin() as connection:
            if not await _take_turn(connection, organization_id):
                return 0
            rows = await _waiting(connection, organization_id)
            if rows:
                await self._tell(rows)
                await _remove(connection, organization_id, rows)
        return len(rows)

    async def _send_with_short_transactions(self, organization_id: UUID) -> int:
        """SQLite has one writer at a time, and nobody shall wait for it until OpenFGA has answered."""
        async with self._database.open_read() as connection:
            rows = await _waiting(connection, organization_id)
        if rows:
            await self._tell(rows)
            async with self._database.writer.begin() as connection:
                await _remove(connection, organization_id, rows)
        return len(rows)

    async def _tell(self, rows: Sequence[Row[Any]]) -> None:
        """Bring each tuple to where its last row leaves it: gone, and written again if it stays. A tuple's end can change no other way."""
        last = {TupleKey(row.subject, row.relation, row.resource): row for row in rows}
        await self._client.delete(list(last))
        staying = [RelationshipTuple(key, row.expires_at) for key, row in last.items() if row.operation == WRITE]
        if staying:
            await self._client.write(staying)

    def _note_stuck(self, organization_id: UUID, error: OpenFGAError) -> None:
        if organization_id not in self._stuck:
            self._stuck.add(organization_id)
            _log.error("OpenFGA %s; changes of organization %s wait, SQL decides for it meanwhile", error, organization_id)


async def _waiting(connection: AsyncConnection, organization_id: UUID) -> Sequence[Row[Any]]:
    of_it = select(_UNSENT).where(_UNSENT.c.organization_id == organization_id)
    return (await connection.execute(of_it.order_by(_UNSENT.c.seq).limit(MAX_WRITES))).all()


async def _remove(connection: AsyncConnection, organization_id: UUID, rows: Sequence[Row[Any]]) -> None:
    # The number alone does not name a row: once the organization is deleted, and its rows with it, SQLite begins again at 1.
    is_sent = _UNSENT.c.seq.in_([row.seq for row in rows])
    await connection.execute(delete(_UNSENT).where(_UNSENT.c.organization_id == organization_id, is_sent))


@contextmanager
def _turn_by_file(database: str) -> Iterator[bool]:
    """A lock on a file beside the database, which ends with the process at the latest. Whether it is ours."""
    handle = os.open(f"{database}-outbox", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _take_turn(connection: AsyncConnection, organization_id: UUID) -> bool:
    name = int.from_bytes(organization_id.bytes[-4:], signed=True)  # two organizations of one name only wait for each other
    return bool((await connection.execute(select(func.pg_try_advisory_xact_lock(_LOCK, name)))).scalar_one())


def unsent_rows(organization_id: UUID, operation: str, tuples: Iterable[RelationshipTuple | None]) -> list[dict[str, Any]]:
    """The rows that say so; None is a row of a table that no tuple stands for."""
    return [
        {
            "organization_id": organization_id,
            "operation": operation,
            "subject": one.key.user,
            "relation": one.key.relation,
            "resource": one.key.object,
            "expires_at": one.expires_at,
            "created_at": now(),
        }
        for one in tuples
        if one is not None
    ]


@event.listens_for(FencedSession, "do_orm_execute")
def _write_down(state: ORMExecuteState) -> Result[Any] | None:
    """Run a change of a table that tuples stand for, and write down what it did: after it, when its rows are locked."""
    session = state.session
    model = state.bind_mapper.class_ if state.bind_mapper is not None else None
    if state.is_select or model not in TUPLE_OF or session.info.get(SESSION_KEY) is None:
        return None
    if state.is_insert:
        result = state.invoke_statement()
        given: Any = state.parameters
        rows = given if isinstance(given, list) else [given]
    else:
        changed = state.invoke_statement(statement=_returning(state, model)).freeze()
        result = changed()
        rows = [dict(row) for row in changed().mappings()]
    if rows:
        operation = DELETE if state.is_delete else WRITE
        written = unsent_rows(rows[0]["organization_id"], operation, [TUPLE_OF[model](row) for row in rows])
        if written:
            session.execute(insert(UnsentTuple), written)
            session.info[_IS_CHANGED] = True
    return result


def _returning(state: ORMExecuteState, model: type[Any]) -> Any:
    statement = state.statement
    if not isinstance(statement, Update | Delete) or statement._returning:  # noqa: SLF001 - there is no public way
        raise TypeError(f"{model.__tablename__} is changed by plain updates and deletes: what they return is needed here")
    if isinstance(statement, Update) and not {getattr(name, "key", name) for name in statement._values or ()} <= _CHANGEABLE:  # noqa: SLF001
        raise TypeError(f"of {model.__tablename__} only the end changes: another grant is another row")
    return statement.returning(*(getattr(model, column.name) for column in model.__table__.columns))


@event.listens_for(FencedSession, "after_commit")
def _wake(session: Session) -> None:
    if session.info.get(_IS_CHANGED):
        session.info[SESSION_KEY].wake()
