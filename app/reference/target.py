"""Our side: units of rows are collected and written in transactions of bounded size, each with its audit event."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import insert, or_, select
from sqlalchemy.exc import IntegrityError

from app.audit.trail import Subject
from app.core.events import AuditAction, Outcome
from app.core.resources import ResourceRef, ResourceType
from app.db.base import Base
from app.db.confinement import Tenants
from app.db.engine import Database
from app.models import AuditEvent, Organization
from app.reference.report import Report
from app.reference.rows import IMPORTED
from app.reference.source import TABLES
from app.unit_of_work import UnitOfWork, WorkContext, open_system_work

MAX_ROWS: Final = 500
# Contents that wait for their rows must not become old enough for the sweeper.
MAX_CONTENT_BYTES: Final = 256 * 1024 * 1024
_REASON: Final = "import from SaaSBase 0.1.1"


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that come together or not at all, parents first."""

    rows: list[tuple[type[Base], dict[str, Any]]]
    content_bytes: int = 0

    @property
    def id(self) -> UUID:
        """That of its first row."""
        found: UUID = self.rows[0][1]["id"]
        return found

    @property
    def counted(self) -> list[tuple[str, UUID]]:
        """Table and id of each row that stands for one of the reference."""
        return [(model.__tablename__, row["id"]) for model, row in self.rows if model.__tablename__ in TABLES]


class OrganizationTarget:
    """Where the rows of one organization go. What is there already is found by its id, and stays as it is."""

    def __init__(self, context: WorkContext, organization_id: UUID, report: Report) -> None:
        self._context = context
        self._organization_id = organization_id
        self._report = report
        self._units: list[Unit] = []

    async def known(self, model: Any, ids: Iterable[UUID]) -> set[UUID]:
        """Which of these rows the organization has."""
        if self._is_empty:
            return set()
        async with open_system_work(self._context, _REASON, self._organization_id) as work:
            return await _known(work, model, ids)

    async def has_slug_to_itself(self, slug: str) -> bool:
        """Whether no other organization goes by that name."""
        if self._is_empty:
            return True
        # Not by the unit of work: it would ask the policy engine what the import may do there.
        async with self._context.database.open_read(Tenants.of_row(Organization.slug, slug)) as connection:
            found = (await connection.execute(select(Organization.id).where(Organization.slug == slug))).scalar_one_or_none()
        return found in {None, self._organization_id}

    async def is_worked_in(self) -> bool:
        """Whether anything happened in it but the import: then what is absent may have been taken away, and must not come back."""
        if self._is_empty:
            return False
        is_of_import = or_(AuditEvent.auth_method == IMPORTED, AuditEvent.action == AuditAction.ORGANIZATION_IMPORTED.value)
        statement = select(AuditEvent.id).where(~is_of_import, AuditEvent.outcome != Outcome.DENIED.value).limit(1)
        async with open_system_work(self._context, _REASON, self._organization_id) as work:
            return (await work.session.execute(statement)).one_or_none() is not None

    async def add(self, unit: Unit) -> None:
        """Write it, sooner or later."""
        self._units.append(unit)
        is_full = sum(len(unit.rows) for unit in self._units) >= MAX_ROWS
        if is_full or sum(unit.content_bytes for unit in self._units) >= MAX_CONTENT_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what was collected, in one transaction with one audit event that says how many rows of each table."""
        units, self._units = self._units, []
        if self._report.is_dry_run:
            self._count(units)
        elif units:
            self._count(await self._write(units))

    async def _write(self, units: list[Unit]) -> list[Unit]:
        async with open_system_work(self._context, _REASON, self._organization_id) as work:
            try:
                async with work.attempt():
                    await _insert(work, units)
                written = units
            except IntegrityError:
                written = [unit for unit in units if await self._write_alone(work, unit)]
            if written:
                numbers = Counter(table for unit in written for table, _ in unit.counted)
                home = ResourceRef(ResourceType.ORGANIZATION, self._organization_id)
                work.record_told(AuditAction.ORGANIZATION_IMPORTED, Subject(home, home.id), numbers)
        return written

    async def _write_alone(self, work: UnitOfWork, unit: Unit) -> bool:
        """Whether it could be written; else another import was faster, or something else of ours has its id or its name."""
        try:
            async with work.attempt():
                await _insert(work, [unit])
        except IntegrityError:
            is_there = unit.id in await _known(work, unit.rows[0][0], [unit.id])
            for table, row_id in unit.counted:
                if is_there:
                    self._report.counts[table].there += 1
                else:
                    self._report.leave_out(table, row_id, "something else is here in its place, or what it hangs below is not")
            return False
        return True

    def _count(self, units: list[Unit]) -> None:
        for unit in units:
            for table, _ in unit.counted:
                self._report.counts[table].imported += 1

    @property
    def _is_empty(self) -> bool:
        """A dry run does not make a database to look into."""
        return self._report.is_dry_run and not exists(self._context.database)


def exists(database: Database) -> bool:
    """Whether there is a database; asking SQLite would make one."""
    return not database.is_sqlite or Path(database.url.database or "").exists()


async def _known(work: UnitOfWork, model: Any, ids: Iterable[UUID]) -> set[UUID]:
    return set((await work.session.execute(select(model.id).where(model.id.in_(list(ids))))).scalars())


async def _insert(work: UnitOfWork, units: list[Unit]) -> None:
    """A statement for each run of rows of one table: what hangs below another row comes after it."""
    by_model: dict[type[Base], list[dict[str, Any]]] = {}
    for unit in units:
        for model, row in unit.rows:
            by_model.setdefault(model, []).append(row)
    for model, rows in by_model.items():
        await work.session.execute(insert(model), rows)
