"""Verifies the chains of all organizations, one after the other, whether they still exist or not."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

from sqlalchemy import Table, select, union

from app.audit.chain import ChainKeys
from app.audit.findings import Place, Verification
from app.audit.verification import verify
from app.db.engine import Database
from app.models import AuditChain, AuditCheckpoint, AuditEvent, Organization

_ORGANIZATIONS: Final = cast("Table", Organization.__table__)
# A chain may have lost its head, its checkpoints or all its events, but hardly without a trace.
_CHAINS: Final = union(*(select(cast("Table", model.__table__).c.organization_id) for model in (AuditChain, AuditCheckpoint, AuditEvent)))


class UnknownOrganizationError(LookupError):
    """Neither is there such an organization, nor a trail of one that was."""


@dataclass(frozen=True, slots=True)
class Report:
    """One chain, and what was found."""

    organization_id: UUID
    slug: str | None
    checked: int
    found: Verification

    @property
    def ok(self) -> bool:
        """Whether the chain is as it was written."""
        return self.found.ok

    @property
    def line(self) -> str:
        """The same for people."""
        name = f"{self.slug or '(deleted)'} {self.organization_id}"
        through, broken = self.found.sealed_through, self.found.first_break
        if broken is not None:
            event = f", event {broken.event_id}" if broken.event_id is not None else ""
            return f"{name}: BROKEN at position {broken.position}: {broken.kind.value}{event}"
        end = f"through position {through.position}, hash {through.hash}" if through is not None else "nothing is sealed yet"
        return f"{name}: ok, {self.checked} events, {end}, {self.found.unsealed} unsealed"


async def report(database: Database, keys: ChainKeys, wanted: str | None, known: Place | None = None) -> AsyncIterator[Report]:
    """Verify every chain to its end, or that of the organization with this slug or id, as the role that sees every tenant.

    ``known`` is what somebody knows of that one chain.

    Raises:
        UnknownOrganizationError: there is no such organization, and no trail of one.
    """
    database = database.for_jobs
    async with database.open_read() as connection:
        slugs = dict((await connection.execute(select(_ORGANIZATIONS.c.id, _ORGANIZATIONS.c.slug))).tuples().all())
        chains = set((await connection.execute(_CHAINS)).scalars()) | slugs.keys()
    chosen = [one for one in chains if wanted is None or wanted in {str(one), slugs.get(one)}]
    if wanted is not None and not chosen:
        raise UnknownOrganizationError(f"there is no organization {wanted}, and no trail of one")
    for organization_id in sorted(chosen):
        found = await verify(database, keys, organization_id, known=known)
        checked = found.checked
        while found.next_position is not None:
            found = await verify(database, keys, organization_id, from_position=found.next_position, known=known)
            checked += found.checked
        yield Report(organization_id, slugs.get(organization_id), checked, found)
