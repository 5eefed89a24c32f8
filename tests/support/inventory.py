"""What lies in the database and in the store, read past the service, and whether the two agree."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.support.database import behind, open_database
from tests.support.s3 import Bucket

FOLDER = "documents"


@dataclass(frozen=True, slots=True)
class Inventory:
    """Rows by table, and the files of the store by address with their size and checksum."""

    documents: list[Any]
    versions: list[Any]
    events: list[Any]
    grants: list[Any]
    objects: dict[str, tuple[int, str]]
    incoming: list[str]

    @property
    def named(self) -> set[str]:
        """The addresses that rows name."""
        return {row.storage_uri for row in self.versions} | {row.storage_uri for row in self.documents}

    @property
    def orphans(self) -> set[str]:
        """Files without a row."""
        return self.objects.keys() - self.named

    def check(self) -> None:
        """Row, object, checksum and audit event agree. Files without a row are told apart: the sweeper's business."""
        for row in (*self.documents, *self.versions):
            assert self.objects.get(row.storage_uri) == (row.size_bytes, row.checksum), f"a row without its bytes: {row}"
        granted = {str(row.resource_id) for row in self.grants if row.resource_type == "DOCUMENT"}
        assert granted <= {str(row.id) for row in self.documents}, "a grant on a document that is gone"
        self._check_versions()
        self._check_events()

    def _check_versions(self) -> None:
        numbers: dict[str, list[int]] = {}
        for version in self.versions:
            numbers.setdefault(str(version.document_id), []).append(version.version_number)
        current = {(str(row.id), str(row.current_version_id), row.current_version_number, row.checksum) for row in self.documents}
        assert {str(row.id) for row in self.documents} == numbers.keys()
        for document_id, found in numbers.items():
            assert sorted(found) == list(range(1, len(found) + 1)), f"{document_id} has the versions {sorted(found)}"
        newest = [row for row in self.versions if row.version_number == len(numbers[str(row.document_id)])]
        assert {(str(row.document_id), str(row.id), row.version_number, row.checksum) for row in newest} == current

    def _check_events(self) -> None:
        told = Counter((event.action, str(event.resource_id)) for event in self.events if event.outcome == "SUCCESS")
        created = {str(resource) for action, resource in told if action == "DOCUMENT_CREATED"}
        deleted = {str(resource) for action, resource in told if action == "DOCUMENT_DELETED"}
        assert {str(row.id) for row in self.documents} == created - deleted
        per_document = Counter(str(row.document_id) for row in self.versions)
        for document_id, count in per_document.items():
            assert told["DOCUMENT_CREATED", document_id] == 1
            assert told["DOCUMENT_VERSION_CREATED", document_id] == count - 1


def list_files(folder: Path) -> dict[str, Path]:
    """Every file of a disk store by its address, unfinished ones included; the mark is none of them."""
    return {f"disk:{path.parent.name}/{path.name}": path for path in (folder / FOLDER).glob("*/**/*") if path.is_file()}


async def take_inventory(database_url: str, folder: Path, bucket: Bucket | None = None) -> Inventory:
    """Read everything; the contents from the bucket, if they lie in one."""
    async with open_database(database_url) as database, behind(database) as connection:
        rows = {}
        if not database.is_sqlite:  # of one moment: PostgreSQL may still be ending what a process asked for that was killed
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        for table in ("documents", "document_versions", "audit_events", "memberships"):
            rows[table] = list((await connection.execute(text(f"SELECT * FROM {table}"))).all())
    objects, incoming = _in_folder(folder) if bucket is None else await _in_bucket(bucket)
    return Inventory(rows["documents"], rows["document_versions"], rows["audit_events"], rows["memberships"], objects, incoming)


def _in_folder(folder: Path) -> tuple[dict[str, tuple[int, str]], list[str]]:
    files = list_files(folder)
    incoming = [address for address in files if address.startswith("disk:incoming/")]
    return {address: _digest(path) for address, path in files.items() if address not in incoming}, incoming


async def _in_bucket(bucket: Bucket) -> tuple[dict[str, tuple[int, str]], list[str]]:
    contents = {f"s3:{key}": await bucket.read(key) for key in await bucket.keys()}
    objects = {address: (len(content), hashlib.sha256(content).hexdigest()) for address, content in contents.items()}
    return objects, [f"s3:{key}/{upload_id}" for key, upload_id in await bucket.uploads()]


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
