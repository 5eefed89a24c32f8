"""The reference's database, SQLite or PostgreSQL: read only, and as of one moment where the database can do that."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import (
    URL,
    RowMapping,
    Select,
    TableClause,
    Text,
    and_,
    cast,
    column,
    event,
    exists,
    func,
    null,
    or_,
    select,
    table,
    union_all,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.db.urls import DatabaseURLError, parse_database_url

CHUNK: Final = 200

_RECORDED: Final = "created_at updated_at created_by_subject"
_IN_PROJECT: Final = "id organization_id project_id"
_BYTES: Final = "media_type size_bytes checksum storage_key"
_COLUMNS: Final = {
    "organizations": f"id slug name metadata_json {_RECORDED}",
    "projects": f"id organization_id name metadata_json {_RECORDED}",
    "documents": f"{_IN_PROJECT} name current_version_id metadata_json {_RECORDED}",
    "document_versions": f"{_IN_PROJECT} document_id version_number version_name name {_BYTES} metadata_json created_at created_by_subject",
    "api_calls": f"{_IN_PROJECT} name operation_key external_request_id idempotency_key correlation_id status requested_at responded_at"
    f" request_payload_json response_payload_json metadata_json {_RECORDED}",
    "executions": f"{_IN_PROJECT} operation status actor_type actor_id target_resource_type target_resource_id correlation_id"
    " parent_execution_id agent_version model_provider model_name confidence warnings_json provenance_json started_at ended_at"
    " input_json output_json metadata_json",
    "api_keys": f"{_IN_PROJECT} name prefix secret_hash scope_type scope_id role expires_at last_used_at revoked_at metadata_json"
    f" {_RECORDED}",
    "memberships": "id resource_type resource_id actor_type actor_id role granted_at",
    "audit_events": f"{_IN_PROJECT} occurred_at actor_type actor_id action resource_type resource_id correlation_id details_json",
}
TABLES: Final = tuple(_COLUMNS)

_T: Final[dict[str, TableClause]] = {name: table(name, *map(column, columns.split())) for name, columns in _COLUMNS.items()}
_ORDER: Final = {"executions": "started_at", "audit_events": "occurred_at", "memberships": "granted_at"}
_LEVELS: Final = {"PROJECT": "projects", "DOCUMENT": "documents", "API_CALL": "api_calls"}

Row = RowMapping


class SourceError(Exception):
    """The reference's database or documents cannot be read; says in one line why."""


class Source:
    """What stands in the reference. Rows come in chunks, oldest first, so that what others hang below comes before them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def organization_ids(self) -> Sequence[str]:
        """Every organization, oldest first."""
        organizations = _T["organizations"].c
        return (
            (await self._connection.execute(select(organizations.id).order_by(organizations.created_at, organizations.id))).scalars().all()
        )

    async def gone_organization_ids(self) -> Sequence[str]:
        """Organizations that were deleted, of which only the audit trail tells."""
        events = _T["audit_events"].c
        found = (
            select(events.organization_id)
            .distinct()
            .where(events.organization_id.is_not(None), _is_absent("organizations", events.organization_id))
        )
        return (await self._connection.execute(found)).scalars().all()

    async def organization(self, organization_id: str) -> Row:
        """Its row."""
        organizations = _T["organizations"]
        return (
            (await self._connection.execute(select(*_columns("organizations")).where(organizations.c.id == organization_id)))
            .mappings()
            .one()
        )

    async def rows_of(self, name: str, organization_id: str) -> AsyncIterator[Sequence[Row]]:
        """The rows of a table that say they are the organization's; of memberships, those on anything in it."""
        if name == "memberships":
            statement = _memberships_of(organization_id)
        else:
            found = _T[name]
            statement = _ordered(name, select(*_columns(name), *_extra_columns(name)).where(found.c.organization_id == organization_id))
        async for chunk in self._stream(statement):
            yield chunk

    async def versions_of(self, document_ids: Sequence[str]) -> dict[str, list[Row]]:
        """The versions of each of the documents, by number."""
        versions = _T["document_versions"]
        statement = (
            select(*_columns("document_versions")).where(versions.c.document_id.in_(document_ids)).order_by(versions.c.version_number)
        )
        found: dict[str, list[Row]] = {document_id: [] for document_id in document_ids}
        for row in (await self._connection.execute(statement)).mappings():
            found[row["document_id"]].append(row)
        return found

    async def parent_ids(self, organization_id: str) -> set[str]:
        """The executions of an organization that others are parts of."""
        runs = _T["executions"].c
        statement = (
            select(runs.parent_execution_id)
            .distinct()
            .where(runs.organization_id == organization_id, runs.parent_execution_id.is_not(None))
        )
        return set((await self._connection.execute(statement)).scalars())

    async def orphans_of(self, name: str) -> AsyncIterator[tuple[str, str]]:
        """Rows that hang below nothing, each with what is missing."""
        found = _T[name].c
        if name == "memberships":
            missing, condition = (
                "what it is on",
                and_(*(_is_not_on(*level) for level in [("ORGANIZATION", "organizations"), *_LEVELS.items()])),
            )
        elif name == "audit_events":
            missing, condition = "its organization", found.organization_id.is_(None)
        elif name == "document_versions":
            documents = _T["documents"].c
            missing, condition = (
                "its document",
                ~exists().where(documents.id == found.document_id, ~_is_absent("organizations", documents.organization_id)),
            )
        else:
            missing, condition = "its organization", _is_absent("organizations", found.organization_id)
        async for chunk in self._stream(select(found.id).where(condition)):
            for row in chunk:
                yield row["id"], missing

    async def _stream(self, statement: Any) -> AsyncIterator[Sequence[Row]]:
        result = await self._connection.stream(statement)
        async for chunk in result.mappings().partitions(CHUNK):
            yield chunk


@asynccontextmanager
async def open_source(url: str) -> AsyncIterator[Source]:
    """Read the database at any URL the reference takes.

    Raises:
        SourceError: it cannot be reached or read, or is none of SaaSBase 0.1.1.
    """
    try:
        engine = _engine(parse_database_url(url))
    except DatabaseURLError as error:
        raise SourceError(str(error)) from None
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        try:
            connection = await stack.enter_async_context(engine.connect())
            for found in _T.values():
                await connection.execute(select(found).limit(0))
        except (SQLAlchemyError, OSError) as error:
            told = (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]  # a timeout has no words
            raise SourceError(f"the database of SaaSBase 0.1.1 cannot be read: {told}") from None
        yield Source(connection)


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url, isolation_level="REPEATABLE READ", connect_args={"timeout": 10})
    file = Path(url.database or "").absolute()
    engine = create_async_engine(url.set(database=f"file:{quote(str(file))}", query={"mode": "ro", "uri": "true"}))
    event.listen(engine.sync_engine, "connect", _read_any_text)
    return engine


def _read_any_text(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # SQLite keeps any bytes as text. What is no UTF-8 shall fail where it is looked at, not the whole statement.
    connection.driver_connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")


def _columns(name: str) -> list[Any]:
    """The columns of a table; JSON as text on PostgreSQL too: what cannot be read shall fail where it is looked at."""
    return [cast(found, Text).label(found.name) if found.name.endswith("_json") else found for found in _T[name].c]


def _ordered(name: str, statement: Select[Any]) -> Select[Any]:
    found = _T[name].c
    return statement.order_by(found[_ORDER.get(name, "created_at")], found.id)


def _extra_columns(name: str) -> list[Any]:
    """Of an API call, which of those with the same idempotency key it is: the reference lets one be used again."""
    if name != "api_calls":
        return []
    calls = _T[name].c
    key = (calls.project_id, calls.operation_key, calls.idempotency_key)
    return [func.row_number().over(partition_by=key, order_by=(calls.created_at, calls.id)).label("nth_of_key")]


def _memberships_of(organization_id: str) -> Any:
    grants, keys = _T["memberships"], _T["api_keys"]
    of_key = [keys.c[name].label(f"key_{name}") for name in ("id", "scope_id", "role", "expires_at")]
    with_key = grants.outerjoin(keys, and_(grants.c.actor_type == "API_KEY", keys.c.id == grants.c.actor_id))
    on_itself = (grants.c.resource_type == "ORGANIZATION", grants.c.resource_id == organization_id)
    parts = [select(grants, null().label("project_id"), *of_key).select_from(with_key).where(*on_itself)]
    for level, name in _LEVELS.items():
        places = _T[name]
        project = places.c.id if level == "PROJECT" else places.c.project_id
        joined = with_key.join(places, and_(grants.c.resource_type == level, places.c.id == grants.c.resource_id))
        parts.append(
            select(grants, project.label("project_id"), *of_key).select_from(joined).where(places.c.organization_id == organization_id)
        )
    every = union_all(*parts).subquery()
    return select(every).order_by(every.c.granted_at, every.c.id)


def _is_absent(name: str, key: Any) -> Any:
    other = _T[name].alias()
    return ~exists().where(other.c.id == key)


def _is_not_on(level: str, name: str) -> Any:
    grants = _T["memberships"].c
    return or_(grants.resource_type != level, _is_absent(name, grants.resource_id))
