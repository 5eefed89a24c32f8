"""The n-th call of the store, the session or the disk fails, for every n: rows, bytes, checksums and audit events still agree."""

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.blobs.disk import DiskBlobStore, DiskBlobWriter
from app.blobs.store import BlobStoreError, StoreFullError
from app.blobs.sweeper import sweep
from app.db.tenancy import FencedSession
from app.db.writes import Writer
from app.settings import Settings
from tests.conftest import Caller, Service
from tests.support.faults import Fault
from tests.support.inventory import take_inventory
from tests.support.jobs import stop_jobs

pytestmark = pytest.mark.anyio

LARGE = os.urandom(2_500_000)
LOST = OperationalError("statement", {}, Exception("the connection is gone"))

Operation = Callable[[Caller, str, str], Awaitable[httpx.Response]]
When = Literal["before", "after"]


async def upload(caller: Caller, project_id: str, _document_id: str) -> httpx.Response:
    return await caller.upload(f"/projects/{project_id}/documents", LARGE, expect=None)


async def add_version(caller: Caller, _project_id: str, document_id: str) -> httpx.Response:
    return await caller.upload(f"/documents/{document_id}/versions", LARGE, expect=None, version_name=f"v-{os.urandom(8).hex()}")


async def rename(caller: Caller, _project_id: str, document_id: str) -> httpx.Response:
    return await caller.patch(f"/documents/{document_id}", {"name": os.urandom(8).hex()}, None)


async def delete(caller: Caller, _project_id: str, document_id: str) -> httpx.Response:
    return await caller.delete(f"/documents/{document_id}", None)


OPERATIONS: dict[str, Operation] = {"upload": upload, "add_version": add_version, "rename": rename, "delete": delete}

# What reads first, or changes what there is, does so in a session. What only adds is written at once.
IN_SESSIONS = {"add_version", "rename", "delete"}

# What fails, with which error, before or after its work was done, and in which operations it takes part.
FAULTS: dict[str, tuple[Any, str, Exception, When, set[str]]] = {
    "store_write": (DiskBlobWriter, "write", StoreFullError("full"), "before", {"upload", "add_version"}),
    "store_finish": (DiskBlobWriter, "finish", BlobStoreError("down"), "before", {"upload", "add_version"}),
    "store_finish_late": (DiskBlobWriter, "finish", BlobStoreError("down"), "after", {"upload", "add_version"}),
    "disk_write": (os, "write", OSError(28, "full"), "before", {"upload", "add_version"}),
    "disk_fsync": (os, "fsync", OSError(5, "broken"), "before", {"upload", "add_version"}),
    "disk_rename": (os, "rename", OSError(5, "broken"), "after", {"upload", "add_version"}),
    "store_delete": (DiskBlobStore, "delete", BlobStoreError("down"), "before", {"delete"}),
    "execute": (FencedSession, "execute", LOST, "before", IN_SESSIONS),
    "execute_late": (FencedSession, "execute", LOST, "after", IN_SESSIONS),
    "execute_bug": (FencedSession, "execute", ZeroDivisionError("bug"), "after", IN_SESSIONS),
    "commit": (AsyncSession, "commit", LOST, "before", IN_SESSIONS),
    "commit_late": (AsyncSession, "commit", LOST, "after", IN_SESSIONS),
    "at_once": (Writer, "write", LOST, "before", {"upload"}),
    "at_once_late": (Writer, "write", LOST, "after", {"upload"}),
    "at_once_silence": (Writer, "write", TimeoutError(), "after", {"upload"}),
}
CASES = [(fault, operation) for fault, parts in FAULTS.items() for operation in OPERATIONS if operation in parts[4]]
# Faults whose outcome the client cannot know, or that come after the transaction: bytes may stay for the sweeper.
MAY_LEAVE_BYTES = {"commit", "commit_late", "at_once", "at_once_late", "at_once_silence", "store_delete", "store_finish_late"}


@pytest.mark.parametrize(("fault_name", "operation_name"), CASES)
async def test_whatever_call_fails_rows_bytes_and_events_agree(
    service: Service,
    alice: Caller,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault_name: str,
    operation_name: str,
) -> None:
    owner, name, error, when, _ = FAULTS[fault_name]
    operation = OPERATIONS[operation_name]
    await stop_jobs()  # a call of theirs would be counted with those of the operation
    project = await alice.new_project((await alice.new_organization())["id"])
    struck = await _strike_until_it_succeeds(
        alice,
        project["id"],
        lambda patch, nth: Fault(patch, owner, name, nth=nth, error=error, when=when),
        operation,
        monkeypatch.context,
        lambda: _check(settings, tmp_path, may_leave_bytes=fault_name in MAY_LEAVE_BYTES),
        is_told=fault_name != "store_delete",
    )
    assert struck >= 1
    await sweep(service.runtime.context.database, service.runtime.store, timedelta(seconds=-5))
    await _check(settings, tmp_path, may_leave_bytes=False)


async def _strike_until_it_succeeds(
    caller: Caller,
    project_id: str,
    inject: Callable[[pytest.MonkeyPatch, int], Fault],
    operation: Operation,
    patched: Callable[[], AbstractContextManager[pytest.MonkeyPatch]],
    check: Callable[[], Awaitable[None]],
    *,
    is_told: bool,
) -> int:
    """Repeat the operation on fresh documents with the first, second, third ... call failing; how many faults struck."""
    for nth in range(1, 40):
        document = await caller.new_document(project_id)
        with patched() as patch:
            fault = inject(patch, nth)
            answer = await operation(caller, project_id, document["id"])
        await check()
        if not fault.has_struck:
            assert answer.is_success, answer.text
            return nth - 1
        if is_told:
            assert answer.status_code in {500, 503, 507}, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert "gone" not in answer.text
        else:
            assert answer.is_success, answer.text
        # The service has recovered: the same operation works at once, unless the fault came too late to undo it.
        again = await operation(caller, project_id, document["id"])
        assert again.is_success or again.status_code == 404, again.text
    raise AssertionError("it never succeeded")


async def _check(settings: Settings, folder: Path, *, may_leave_bytes: bool) -> None:
    found = await take_inventory(settings.db_url.get_secret_value(), folder)
    found.check()
    assert found.incoming == []
    assert may_leave_bytes or found.orphans == set()


async def test_a_change_and_its_event_are_written_together_or_not_at_all(
    alice: Caller, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await alice.new_project((await alice.new_organization())["id"])
    document = await alice.new_document(project["id"])

    def is_event(*args: Any) -> bool:
        return "INSERT INTO audit_events" in str(args[1])

    with monkeypatch.context() as patch:
        fault = Fault(patch, FencedSession, "execute", nth=1, error=LOST, of=is_event)
        assert (await rename(alice, "", document["id"])).status_code == 503
        assert fault.has_struck
    assert (await alice.get(f"/documents/{document['id']}")).json() == document
    await _check(settings, tmp_path, may_leave_bytes=False)
