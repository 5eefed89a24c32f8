"""The database: one reader and one writer engine over SQLite or PostgreSQL, opened once per process."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, cast
from uuid import uuid4

from pydantic_core import from_json, to_json
from sqlalchemy import URL, Connection, Engine, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from app.db.confinement import ConfinableConnection, Tenants, confine, forget
from app.db.fair_pool import FairPool
from app.db.lookups import Lookup
from app.db.silence import BoundedConnection, give_up, limits_of_waiting
from app.db.urls import DatabaseURLError, parse_database_url
from app.db.writes import MAX_ROWS, Insertion, Writer

_log = logging.getLogger(__name__)

SQLITE_READERS = 4
JOB_CONNECTIONS = 2


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections, and how long anything may wait; seconds, 0 = no limit."""

    size: int = 8
    checkout_seconds: float = 30
    statement_seconds: float = 30
    lock_seconds: float = 10
    transaction_pooler: bool = False


def session_settings(limits: PoolLimits) -> dict[str, str]:
    """What holds in each session of PostgreSQL: said by the connection, or by its role where a pooler is between. Names and digits only."""
    return {
        "statement_timeout": str(int(limits.statement_seconds * 1000)),
        "lock_timeout": str(int(limits.lock_seconds * 1000)),
        "idle_in_transaction_session_timeout": "60000",
        "jit": "off",  # compiling a plan costs more than running our short statements
        "max_parallel_workers_per_gather": "0",  # and so does starting workers for them
        "plan_cache_mode": "force_generic_plan",  # and planning: each has the index that serves it, whatever the values
    }


@dataclass(frozen=True, slots=True)
class SecondWall:
    """How tenants are kept apart by the database itself: row-level security, and a role of their own for jobs of every tenant."""

    row_level_security: bool = False
    jobs_url: URL | None = None


class Database:
    """Engines of one process.

    ``reader`` runs each statement by itself (autocommit): no BEGIN and no ROLLBACK round trip around a read.
    ``writer`` runs transactions. On PostgreSQL the two share one pool. On SQLite the writer is a single connection,
    so that writers of one process queue in order instead of spinning on the file's lock, and BEGIN IMMEDIATE makes
    writers of several processes wait for each other before they have read anything.

    With row-level security reads are transactions too, because only a transaction can be confined to tenants: look-ups and the writes
    that ``write_at_once`` sends are one by themselves. ``for_jobs`` is the
    same database as the role that sees every tenant, with a small pool of its own; this very object when no role is named for jobs.
    """

    def __init__(self, url: URL, limits: PoolLimits | None = None, wall: SecondWall | None = None) -> None:
        self.url = url
        self.limits = limits or PoolLimits()
        self.is_sqlite = url.get_backend_name() == "sqlite"
        wall = wall or SecondWall()
        self.row_level_security = wall.row_level_security
        self.for_jobs = Database(wall.jobs_url, replace(self.limits, size=JOB_CONNECTIONS)) if wall.jobs_url is not None else self
        if self.is_sqlite:
            if wall.row_level_security or wall.jobs_url is not None:
                raise DatabaseURLError(
                    "SQLite has neither row-level security nor roles: SAASBASE_DATABASE__ROW_LEVEL_SECURITY and"
                    " SAASBASE_DATABASE__JOBS_URL are for PostgreSQL"
                )
            Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
            self.writer = self._sqlite_engine(pool_size=1)
            event.listen(self.writer.sync_engine, "begin", _begin_immediate)
            # Said when the engine is made, so that a checkout neither sets nor resets it: every question to SQLite is a thread hop.
            # The writer must never skip its rollbacks: to its driver a transaction we began ourselves looks like autocommit too.
            self.reader = self._sqlite_engine(
                pool_size=SQLITE_READERS, pool_reset_on_return=None, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True
            )
        else:
            self.writer = self._postgresql_engine()
            # Outside a transaction a pooler may send each message to another server, and asyncpg prepares a statement before it runs it.
            in_transactions = self.limits.transaction_pooler or self.row_level_security
            self.reader = self.writer if in_transactions else self.writer.execution_options(isolation_level="AUTOCOMMIT")
        self._at_once = Writer(
            self.writer.sync_engine, checkout_seconds=self.limits.checkout_seconds, in_transaction=self.limits.transaction_pooler
        )

    @classmethod
    def from_url(cls, text_: str, limits: PoolLimits | None = None, wall: SecondWall | None = None) -> Self:
        """Open nothing yet; connections are made on first use.

        Raises:
            DatabaseURLError: see ``parse_database_url``.
        """
        return cls(parse_database_url(text_), limits, wall)

    async def aclose(self) -> None:
        """Close every connection when what is being written is written; one that does not answer is waited for half a second."""
        await self._at_once.aclose()
        await self.writer.dispose()
        await self.reader.dispose()
        if self.for_jobs is not self:
            await self.for_jobs.aclose()

    @asynccontextmanager
    async def open_read(self, tenants: Tenants | None = None) -> AsyncIterator[AsyncConnection]:
        """A connection in which every statement stands alone; with row-level security a transaction that sees these tenants only."""
        async with self.reader.connect() as connection:
            confine(cast("Connection", connection.sync_connection), tenants)
            yield connection

    async def look_up(self, lookup: Lookup, parameters: Mapping[str, Any], tenants: Tenants | None = None) -> Any | None:
        """The one row of a look-up, or None; see ``look_up_all``."""
        rows = await self.look_up_all(lookup, parameters, tenants)
        return rows[0] if rows else None

    async def look_up_all(self, lookup: Lookup, parameters: Mapping[str, Any], tenants: Tenants | None = None) -> Any:
        """The rows of a look-up; with row-level security seen by these tenants only.

        When its connection turns out to be broken, the statement is sent once more, on another one and the ordinary way: so it is also
        sent while somebody listens to what the engine sends, and its faults are those of every statement. Who waited in vain does not
        wait twice.
        """
        if not self.reader.sync_engine.dispatch.before_cursor_execute:
            try:
                told = tenants if self.row_level_security else None
                return await lookup.run(self.reader.sync_engine, parameters, told, in_transaction=self.limits.transaction_pooler)
            except (PoolTimeoutError, TimeoutError):  # no connection was free in time, or nothing came
                raise
            except Exception as error:  # noqa: BLE001 - if it is no passing fault, the ordinary way meets it too
                _log.info("a look-up is sent again: %s", error)
        async with self.open_read(tenants) as connection:
            return (await connection.execute(lookup.statement, parameters)).all()

    async def write_at_once(self, insertions: Sequence[Insertion], tenants: Tenants | None, past_the_line: Callable[[], None]) -> bool:
        """Write rows in a transaction of their own, on PostgreSQL as one statement; whether that was done.

        It is not when the database refuses them, or somebody listens to what the engine sends: the ordinary way is left then, which also
        has words for a refusal. ``past_the_line`` is called when nobody may be able to say any more that nothing was written.

        Raises:
            PoolTimeoutError: no connection was free in time.
            Exception: whatever else the driver raises.
        """
        if self.writer.sync_engine.dispatch.before_cursor_execute or sum(len(insertion.rows) for insertion in insertions) > MAX_ROWS:
            return False
        try:
            written = await self._at_once.write(insertions, tenants if self.row_level_security else None)
        except PoolTimeoutError:
            raise
        except BaseException:
            past_the_line()
            raise
        if written:
            past_the_line()
        return written

    async def ping(self) -> None:
        """Ask the database the simplest question; raises what the driver raises."""
        async with asyncio.timeout(5), self.open_read() as connection:
            await connection.execute(text("SELECT 1"))

    async def has_time_limit(self) -> bool:
        """Whether a statement is ended that takes too long: behind a pooler that is for the role to say."""
        if self.is_sqlite or not self.limits.statement_seconds:
            return True
        async with self.open_read() as connection:
            found: str = (await connection.execute(text("SHOW statement_timeout"))).scalar_one()
            return found != "0"

    async def read_clock(self) -> datetime | None:
        """What time it is where the database runs; None when that is in this process."""
        if self.is_sqlite:
            return None
        async with self.open_read() as connection:
            found: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
            return found

    @property
    def engines(self) -> list[Engine]:
        """All there are, also those for jobs, for who listens to them: one for each pool, because a view of an engine is heard by it."""
        ours = [engine.sync_engine for engine in (self.reader, self.writer)]
        found = list({id(engine.pool): engine for engine in ours}.values())
        return found if self.for_jobs is self else [*found, *self.for_jobs.engines]

    def count_connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many may be."""
        pools = [pool for pool in {self.writer.pool, self.reader.pool} if isinstance(pool, QueuePool)]
        return sum(pool.checkedout() for pool in pools), sum(pool.size() for pool in pools)

    def _sqlite_engine(self, **options: Any) -> AsyncEngine:
        engine = create_async_engine(
            self.url,
            **options,
            poolclass=FairPool,
            max_overflow=0,
            pool_timeout=self.limits.checkout_seconds,
            # Whoever has borrowed a connection may also use it in his own thread: see look-ups that are short.
            connect_args={"timeout": self.limits.lock_seconds, "check_same_thread": False},
            json_serializer=partial(json.dumps, ensure_ascii=False),  # as it is read, so that it can be searched
            json_deserializer=from_json,
            hide_parameters=True,  # what a caller sent stands in no error's text, and so in no log line
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        return engine

    def _postgresql_engine(self) -> AsyncEngine:
        options: dict[str, Any] = {
            "server_settings": {"application_name": "saasbase", **session_settings(self.limits)},
            "connection_class": ConfinableConnection if self.row_level_security else BoundedConnection,
            **limits_of_waiting(self.limits.statement_seconds),
        }
        if self.limits.transaction_pooler:
            # PgBouncer gives each transaction another server: session settings and named statements would be lost or collide. The
            # settings are then the role's: see ``app.db.roles.create_roles``.
            options["server_settings"] = {}
            options["statement_cache_size"] = 0
            options["prepared_statement_cache_size"] = 0
            options["prepared_statement_name_func"] = lambda: f"__saasbase_{uuid4().hex}__"
        engine = create_async_engine(
            self.url,
            poolclass=FairPool,
            pool_size=self.limits.size,
            max_overflow=0,
            pool_timeout=self.limits.checkout_seconds,
            pool_use_lifo=True,
            connect_args=options,
            json_serializer=_write_json,
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "connect", _read_json)
        event.listen(engine.sync_engine, "handle_error", give_up)
        if self.row_level_security:
            event.listen(engine.sync_engine, "checkin", forget)
        return engine


@dataclass(frozen=True, slots=True)
class View:
    """A database as a question sees it: with row-level security, these tenants only."""

    database: Database
    tenants: Tenants

    def open(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """See ``Database.open_read``."""
        return self.database.open_read(self.tenants)

    async def look_up_all(self, lookup: Lookup, parameters: Mapping[str, Any]) -> Any:
        """See ``Database.look_up_all``."""
        return await self.database.look_up_all(lookup, parameters, self.tenants)


def _write_json(value: Any) -> str:
    return to_json(value, inf_nan_mode="constants").decode()  # a constant is refused by the database, as ever; null would be another value


def _read_json(connection: Any, _entry: ConnectionPoolEntry) -> None:
    """Have the driver give JSON to what parses it: a list of twenty has sixty to read. SQLAlchemy would cut and decode each before.

    As text, so nobody may ask for a whole row as one value. What is written is JSON already: all else is refused.
    """
    json_ = {"encoder": str.__str__, "decoder": from_json, "format": "text"}
    connection.run_async(lambda driver: driver.set_type_codec("jsonb", schema="pg_catalog", **json_))


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions behind SQLAlchemy's back
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL", "temp_store=MEMORY", "cache_size=-16000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    # SQLite lowers ASCII only; search without regard to case is promised for every script.
    connection.run_async(lambda driver: driver.create_function("lower", 1, _lower, deterministic=True))


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
