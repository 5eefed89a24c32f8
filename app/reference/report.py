"""What an import found: numbers for each table, and a line for each row that did not come as it was."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.reference.source import TABLES


@dataclass(slots=True)
class Count:
    """Rows of one table."""

    read: int = 0
    imported: int = 0
    there: int = 0
    left_out: int = 0


@dataclass(slots=True)
class Report:
    """Grows while the import runs. Holds ids and reasons, and nothing of what stands in the rows."""

    is_dry_run: bool
    counts: dict[str, Count] = field(default_factory=lambda: {table: Count() for table in TABLES})
    notes: list[str] = field(default_factory=list)
    changed: int = 0

    @property
    def left_out(self) -> int:
        """How many rows were left out."""
        return sum(count.left_out for count in self.counts.values())

    def leave_out(self, table: str, row_id: Any, reason: str) -> None:
        """A row is not imported."""
        self.counts[table].left_out += 1
        self._note("left out", table, row_id, reason)

    def change(self, table: str, row_id: Any, changes: list[str]) -> None:
        """A row is imported, but not quite as it was."""
        if changes:
            self.changed += 1
            self._note("changed", table, row_id, "; ".join(changes))

    def note_ownerless(self, organization_id: Any) -> None:
        """Nobody can manage the organization now that roles count."""
        self._note("no owner", "organizations", organization_id, "'saasbase keys create' makes a key that can name one")

    def lines(self) -> Iterator[str]:
        """The report as it is printed."""
        imported = "to import" if self.is_dry_run else "imported"
        yield f"{'':<18}{'read':>10}{imported:>12}{'already there':>16}{'left out':>10}"
        for table, count in self.counts.items():
            yield f"{table:<18}{count.read:>10}{count.imported:>12}{count.there:>16}{count.left_out:>10}"
        yield from self.notes
        yield f"{self.left_out} rows left out, {self.changed} changed" + ("; nothing was written" if self.is_dry_run else "")

    def _note(self, what: str, table: str, row_id: Any, text: str) -> None:
        self.notes.append(f"{what}: {table} {ascii(str(row_id))[1:-1]:.80}: {text}")
