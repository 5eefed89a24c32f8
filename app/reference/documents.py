"""Documents with their versions: a version comes with its true bytes or not at all, and a document with at least one version."""

import re
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from app.core.text import InvalidTextError, clean_identifier
from app.http.schemas import fits_a_path
from app.models import Document, DocumentVersion
from app.models.document import MAX_MEDIA_TYPE, MAX_VERSION_NAME
from app.reference.contents import Copier
from app.reference.report import Report
from app.reference.rows import Place, recorded
from app.reference.source import Row
from app.reference.target import Unit
from app.reference.values import RottenRowError, RowReader
from app.resources.documents.schemas import MEDIA_TYPE_PATTERN

VERSIONS: Final = "document_versions"
_CHECKSUM: Final = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPE: Final = re.compile(MEDIA_TYPE_PATTERN)
_OCTETS: Final = "application/octet-stream"
_MAX_STORAGE_KEY: Final = 4096
_MAX_NUMBER: Final = 2**31 - 1
_OF_CONTENT: Final = ("media_type", "size_bytes", "checksum", "storage_uri")


class DocumentReader:
    """Reads documents, and takes the bytes of their versions over."""

    def __init__(self, copier: Copier, report: Report) -> None:
        self._copier = copier
        self._report = report

    async def read(self, row: RowReader, version_rows: Sequence[Row], place: Place) -> Unit:
        """A document with those of its versions that can be had; the newest of them is its current one.

        Raises:
            RottenRowError: the document cannot be imported. Its versions are noted as left out.
        """
        try:
            document = self._read_document(row, place)
        except RottenRowError:
            self.leave_out_versions(version_rows, "its document was left out")
            raise
        versions = [version for given in version_rows if (version := await self._read_version(given, document)) is not None]
        if not versions:
            raise RottenRowError("it has no version whose bytes can be had")
        current = versions[-1]
        if str(current["id"]) != row.string("current_version_id", fallback=""):
            row.changes.append(f"its newest version is number {current['version_number']}: now its current one")
        values = {
            **document,
            **{name: current[name] for name in _OF_CONTENT},
            "current_version_id": current["id"],
            "current_version_number": current["version_number"],
            "current_version_name": current["version_name"],
        }
        return Unit(
            [(Document, values), *((DocumentVersion, version) for version in versions)], sum(each["size_bytes"] for each in versions)
        )

    def leave_out_versions(self, version_rows: Sequence[Row], reason: str) -> None:
        """Note that none of them is imported."""
        for given in version_rows:
            self._report.leave_out(VERSIONS, given["id"], reason)

    def _read_document(self, row: RowReader, place: Place) -> dict[str, Any]:
        return {
            "id": row.uuid("id"),
            "organization_id": place.id,
            "project_id": place.require_project(row),
            "name": row.string("name"),
            "metadata_": row.json("metadata_json"),
            **recorded(row),
        }

    async def _read_version(self, given: Row, document: dict[str, Any]) -> dict[str, Any] | None:
        row = RowReader(given)
        try:
            values = {
                "id": row.uuid("id"),
                "document_id": document["id"],
                "organization_id": _same_organization(row, document),
                "project_id": document["project_id"],
                "version_number": row.integer("version_number", 1, _MAX_NUMBER),
                "version_name": _version_name(row, given["version_number"]),
                "name": row.string("name"),
                "media_type": _media_type(row),
                "size_bytes": row.integer("size_bytes", 0),
                "checksum": row.matching("checksum", _CHECKSUM),
                "metadata_": row.json("metadata_json"),
                "created_at": row.moment("created_at"),
                "created_by_subject": row.subject(),
            }
            key = row.exact("storage_key", _MAX_STORAGE_KEY)
            values["storage_uri"] = await self._copier.copy(key, values["checksum"], values["size_bytes"])
        except RottenRowError as error:
            self._report.leave_out(VERSIONS, given["id"], str(error))
            return None
        self._report.change(VERSIONS, given["id"], row.changes)
        return values


def _same_organization(row: RowReader, document: dict[str, Any]) -> UUID:
    organization_id = row.uuid("organization_id")
    if organization_id != document["organization_id"]:
        raise RottenRowError("it is in another organization than its document")
    return organization_id


def _version_name(row: RowReader, number: int) -> str:
    """The name of a version; one by which it could not be fetched becomes another."""
    name = row.string("version_name", MAX_VERSION_NAME, fallback="")
    try:
        return clean_identifier(fits_a_path(name), MAX_VERSION_NAME)
    except (ValueError, InvalidTextError):
        fit = f"version-{number}-{row.uuid('id').hex[:8]}"
        row.changes.append(f"version_name could not be part of a path: now {fit}")
        return fit


def _media_type(row: RowReader) -> str:
    media_type = row.string("media_type", MAX_MEDIA_TYPE, _OCTETS)
    if _MEDIA_TYPE.fullmatch(media_type):
        return media_type
    row.changes.append(f"media_type is none: now {_OCTETS}")
    return _OCTETS
