"""Goes through the reference organization by organization, and brings what can be kept into ours."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final
from uuid import UUID

from app.blobs.store import BlobStore
from app.models import ApiCall, ApiKey, AuditEvent, Document, DocumentVersion, Execution, Membership, Organization, Project
from app.reference.contents import Contents, Copier
from app.reference.documents import VERSIONS, DocumentReader
from app.reference.report import Report
from app.reference.rows import (
    Place,
    read_api_call,
    read_api_key,
    read_audit_event,
    read_execution,
    read_membership,
    read_organization,
    read_project,
)
from app.reference.source import TABLES, Row, Source
from app.reference.target import OrganizationTarget, Unit
from app.reference.values import RottenRowError, RowReader
from app.unit_of_work import WorkContext

_WORKED_IN: Final = "the organization has been worked in since it was imported, and it is not there: it may have been deleted"
_ORGANIZATION_LEFT_OUT: Final = "its organization was left out"

# In this order: what a row hangs below, or speaks of, comes before it. Documents stand between projects and these.
_READERS: Final[dict[str, tuple[type[Any], Callable[[RowReader, Row, Place], Any]]]] = {
    "projects": (Project, lambda reader, _row, place: read_project(reader, place)),
    "api_calls": (ApiCall, lambda reader, row, place: read_api_call(reader, place, row["nth_of_key"])),
    "executions": (Execution, lambda reader, row, place: read_execution(reader, place, row["id"])),
    "api_keys": (ApiKey, lambda reader, _row, place: read_api_key(reader, place)),
    "memberships": (Membership, lambda reader, row, place: read_membership(reader, place, row["key_role"], row["key_scope_id"])),
    "audit_events": (AuditEvent, lambda reader, _row, place: read_audit_event(reader, place)),
}


class Importer:
    """One import. It may be broken off at any moment: the next one goes on with what is not there yet."""

    def __init__(self, source: Source, contents: Contents, context: WorkContext, store: BlobStore, *, is_dry_run: bool) -> None:
        self._source = source
        self._context = context
        self._report = Report(is_dry_run)
        self._documents = DocumentReader(Copier(contents, store, is_dry_run=is_dry_run), self._report)

    async def run(self) -> Report:
        """Import everything; rows that cannot be imported are in the report, and stop nothing.

        Raises:
            SQLAlchemyError: the reference's database or ours failed.
            BlobStoreError: our store does not take a content.
        """
        for organization_id in await self._source.organization_ids():
            await _Organization(self._source, self._context, self._report, self._documents, organization_id).run()
        for organization_id in await self._source.gone_organization_ids():
            await _Organization(self._source, self._context, self._report, self._documents, organization_id).run_trail()
        for table in TABLES[1:]:
            async for row_id, missing in self._source.orphans_of(table):
                self._report.counts[table].read += 1
                self._report.leave_out(table, row_id, f"{missing} is gone")
        return self._report


class _Organization:
    """The import of one organization."""

    def __init__(self, source: Source, context: WorkContext, report: Report, documents: DocumentReader, raw_id: str) -> None:
        self._source = source
        self._context = context
        self._report = report
        self._documents = documents
        self._raw_id = raw_id
        self._is_closed = False

    async def run(self) -> None:
        """Import it with everything in it."""
        self._report.counts["organizations"].read += 1
        row = await self._source.organization(self._raw_id)
        reader = RowReader(row)
        try:
            await self._begin(Unit(read_organization(reader)))
        except RottenRowError as error:
            self._report.leave_out("organizations", self._raw_id, str(error))
            await self._leave_out_everything()
            return
        self._report.change("organizations", self._raw_id, reader.changes)
        await self._import_table("projects")
        await self._import_documents()
        self._place.parent_ids = await self._source.parent_ids(self._raw_id)
        for table in tuple(_READERS)[1:]:
            await self._import_table(table)
        await self._target.flush()
        if not self._place.has_owner and not self._is_closed:
            self._report.note_ownerless(self._raw_id)

    async def run_trail(self) -> None:
        """Import the audit trail of one that is gone: it outlives what it speaks of."""
        try:
            self._open(UUID(self._raw_id))
        except ValueError:
            await self._leave_out_table("audit_events", "organization_id is no id")
            return
        self._is_closed = await self._target.is_worked_in()
        await self._import_table("audit_events")
        await self._target.flush()

    async def _begin(self, unit: Unit) -> None:
        self._open(unit.id)
        is_known = bool(await self._target.known(Organization, [unit.id]))
        self._is_closed = await self._target.is_worked_in()
        if not await self._target.has_slug_to_itself(unit.rows[0][1]["slug"]):
            raise RottenRowError("another organization has its slug")
        await self._take("organizations", unit, is_known=is_known)

    def _open(self, organization_id: UUID) -> None:
        self._place = Place(organization_id)
        self._target = OrganizationTarget(self._context, organization_id, self._report)

    async def _import_table(self, table: str) -> None:
        model, read = _READERS[table]
        async for rows in self._source.rows_of(table, self._raw_id):
            self._report.counts[table].read += len(rows)
            units = [(unit, reader) for row in rows if (reader := RowReader(row)) and (unit := self._read(table, read, reader, row))]
            known = await self._target.known(model, [unit.id for unit, _ in units])
            for unit, reader in units:
                if await self._try_to_take(table, unit, is_known=unit.id in known):
                    self._report.change(table, unit.id, [] if unit.id in known else reader.changes)
                    if model is Project:
                        self._place.project_ids.add(unit.id)

    def _read(self, table: str, read: Callable[[RowReader, Row, Place], Any], reader: RowReader, row: Row) -> Unit | None:
        try:
            return Unit(read(reader, row, self._place))
        except RottenRowError as error:
            self._leave_out(table, row["id"], str(error))
            return None

    async def _import_documents(self) -> None:
        async for rows in self._source.rows_of("documents", self._raw_id):
            self._report.counts["documents"].read += len(rows)
            versions = await self._source.versions_of([row["id"] for row in rows])
            known = await self._target.known(Document, _ids(rows))
            there = await self._target.known(DocumentVersion, _ids([version for row in rows for version in versions[row["id"]]]))
            for row in rows:
                self._report.counts[VERSIONS].read += len(versions[row["id"]])
                if _id(row) in known:
                    self._note_there(versions[row["id"]], there)
                else:
                    await self._import_document(row, versions[row["id"]])

    def _note_there(self, versions: Sequence[Row], there: set[UUID]) -> None:
        """A document is imported as a whole: a version that did not come with it does not come later."""
        self._report.counts["documents"].there += 1
        for version in versions:
            if _id(version) in there:
                self._report.counts[VERSIONS].there += 1
            else:
                self._report.leave_out(VERSIONS, version["id"], "its document was imported without it")

    async def _import_document(self, row: Row, versions: Sequence[Row]) -> None:
        if self._is_closed:
            self._documents.leave_out_versions(versions, _WORKED_IN)
            self._leave_out("documents", row["id"], _WORKED_IN)
            return
        reader = RowReader(row)
        try:
            unit = await self._documents.read(reader, versions, self._place)
        except RottenRowError as error:
            self._leave_out("documents", row["id"], str(error))
            return
        self._report.change("documents", row["id"], reader.changes)
        await self._target.add(unit)

    async def _try_to_take(self, table: str, unit: Unit, *, is_known: bool) -> bool:
        try:
            await self._take(table, unit, is_known=is_known)
        except RottenRowError as error:
            self._leave_out(table, unit.id, str(error))
            return False
        return True

    async def _take(self, table: str, unit: Unit, *, is_known: bool) -> None:
        if is_known:
            self._report.counts[table].there += 1
        elif self._is_closed:
            raise RottenRowError(_WORKED_IN)
        else:
            await self._target.add(unit)

    def _leave_out(self, table: str, raw_id: Any, reason: str) -> None:
        self._report.leave_out(table, raw_id, reason)
        if (row_id := _id({"id": raw_id})) is not None:
            self._place.left_out.add(row_id)

    async def _leave_out_everything(self) -> None:
        for table in TABLES[1:]:
            await self._leave_out_table(table, _ORGANIZATION_LEFT_OUT)

    async def _leave_out_table(self, table: str, reason: str) -> None:
        rows: AsyncIterator[Sequence[Row]] = self._source.rows_of(table, self._raw_id)
        async for chunk in rows:
            self._report.counts[table].read += len(chunk)
            for row in chunk:
                self._report.leave_out(table, row["id"], reason)


def _id(row: Any) -> UUID | None:
    try:
        return row["id"] if isinstance(row["id"], UUID) else UUID(row["id"])
    except (ValueError, TypeError, AttributeError):
        return None


def _ids(rows: Sequence[Row]) -> list[UUID]:
    return [row_id for row in rows if (row_id := _id(row)) is not None]
