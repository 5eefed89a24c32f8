"""The audit trail as a file: page after page straight to the client, in constant memory however long it is."""

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from app.audit.trail import Origin
from app.core.actors import Identity
from app.core.pagination import CursorPage
from app.core.permissions import Action
from app.resources.audit_events.repository import AuditEventRepository
from app.resources.audit_events.schemas import AuditEventListQuery, ExportFormat
from app.unit_of_work import UnitOfWork, WorkContext

PAGE: Final = 1000
COLUMNS: Final = (
    *("id", "occurred_at", "organization_id", "project_id", "actor_type", "actor_id", "on_behalf_of", "auth_method", "action", "outcome"),
    *("resource_type", "resource_id", "ip", "user_agent", "request_id", "correlation_id", "details"),
)
# What begins a formula, at the start of a cell: of one of ours, or of one that a reader with another list separator makes of its text.
# Full-width forms count: a spreadsheet may fold them.
_SIGN: Final = "[-=+@\uff1d\uff0b\uff0d\uff20]"
_BLANKS: Final = r"[^\S\t\r\n]*"
_FORMULA: Final = re.compile(rf'((?:\A|[;,"\t\r\n]){_BLANKS})(?={_SIGN})')
_JSON_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_JSON_FORMULA: Final = re.compile(rf'((?:[;,"]|\\[trn]){_BLANKS})({_SIGN})')

MEDIA_TYPES: Final = {ExportFormat.NDJSON: "application/x-ndjson", ExportFormat.CSV: "text/csv; charset=utf-8"}


async def export(
    context: WorkContext, identity: Identity, origin: Origin, query: AuditEventListQuery, format_: ExportFormat
) -> AsyncIterator[bytes]:
    """The chosen events, oldest first, written as they are read.

    Every page is authorized anew, so taking the right away ends an export that is under way: the connection is cut then, and a
    file without its end tells so.
    """
    write = _as_csv if format_ is ExportFormat.CSV else _as_lines
    if format_ is ExportFormat.CSV:
        yield (",".join(COLUMNS) + "\r\n").encode()
    cursor: str | None = None
    while True:
        request = query.model_copy(update={"cursor": cursor}).keyset(PAGE)
        async with UnitOfWork(context, identity, origin, is_read_only=True) as work:
            await work.admit_everywhere(Action.MEMBER_MANAGE)
            page = await AuditEventRepository(work).list_visible(query, request)
        if page.items:
            yield write(page.items)
        if not isinstance(page, CursorPage) or page.next_cursor is None:
            return
        cursor = page.next_cursor


def _as_lines(rows: Iterable[Any]) -> bytes:
    return "".join(json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows).encode()


def _as_csv(rows: Iterable[Any]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_cell(value) for value in _plain(row).values()])
    return text.getvalue().encode()


def _plain(row: Any) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in COLUMNS}
    values["occurred_at"] = row.occurred_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    for name in ("id", "organization_id", "project_id", "resource_id"):
        values[name] = str(values[name]) if values[name] is not None else None
    return values


def _cell(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection), whatever it takes for the end of a cell."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return _JSON_STRING.sub(_as_harmless, json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    text = _FORMULA.sub(r"\1'", str(value))
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text


def _as_harmless(string: re.Match[str]) -> str:
    """The same string of JSON, with escapes for what would begin a formula. Numbers outside of strings stand where nothing splits."""
    return _JSON_FORMULA.sub(lambda found: f"{found[1]}\\u{ord(found[2]):04x}", string[0])
