"""How a disk fails, and in which order the disk store makes bytes durable."""

import asyncio
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.blobs.disk import DiskBlobStore
from app.blobs.store import BlobStoreError, BlobWriter, StoreFullError
from tests.contract.test_blob_store import FUTURE, LARGE, count_files, give_up, older_than, opened, put, read
from tests.support.faults import Fault

pytestmark = pytest.mark.anyio


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[DiskBlobStore]:
    async with AsyncExitStack() as stack:
        store = DiskBlobStore(tmp_path / "blobs")
        await stack.enter_async_context(opened(store))
        yield store


async def test_a_check_fails_when_the_folder_is_gone(disk: DiskBlobStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "blobs")
    with pytest.raises(BlobStoreError) as raised:
        await disk.check()
    assert str(tmp_path) not in str(raised.value)


async def test_a_check_fails_when_the_folder_cannot_be_written(
    disk: DiskBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # chmod does not bind root, under whom containers run these tests; the refusal itself is what matters
    incoming = str(tmp_path / "blobs" / "incoming")
    Fault(monkeypatch, os, "open", nth=1, error=OSError(errno.EACCES, "no", incoming), of=lambda path, *_: str(path).startswith(incoming))
    with pytest.raises(BlobStoreError) as raised:
        await disk.check()
    assert str(tmp_path) not in str(raised.value)


async def test_a_store_whose_place_is_taken_by_a_file_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    store = DiskBlobStore(tmp_path / "blobs")
    try:
        with pytest.raises(BlobStoreError):
            await store.open()
    finally:
        await store.aclose()


async def test_files_of_others_in_its_folders_are_left_alone(disk: DiskBlobStore, tmp_path: Path) -> None:
    blob = await put(disk, b"mine")
    folder = tmp_path / "blobs" / "objects" / blob.uri.removeprefix("disk:").partition("/")[0]
    for stranger in (folder / ".nfs0001", folder / "notes.txt", tmp_path / "blobs" / "incoming" / ".keep"):
        stranger.write_bytes(b"not yours")
    assert await older_than(disk, -FUTURE) == {blob.uri}


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StoreFullError), (errno.EDQUOT, StoreFullError), (errno.EIO, BlobStoreError)]
)
async def test_a_disk_that_fails_leaves_nothing(
    disk: DiskBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, expected: type[Exception]
) -> None:
    seen = []
    for nth in range(1, 20):
        with monkeypatch.context() as patch:
            fault = Fault(patch, os, call, nth=nth, error=OSError(number, "injected"))
            try:
                blob = await put(disk, LARGE[:1000], LARGE[1000:2000])
            except BlobStoreError as error:
                seen.append((type(error), "injected" in str(error)))
                assert count_files(tmp_path) == 0
                continue
        assert not fault.has_struck
        assert await read(disk, blob.uri) == LARGE[:2000]
        break
    assert seen
    assert set(seen) == {(expected, False)}


async def test_a_mark_on_its_way_lies_in_no_folder_of_contents_and_is_removed_when_it_fails(
    disk: DiskBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed there must leave an empty store one that looks empty."""
    await disk.write_mark("first")
    seen: list[Path] = []

    def fail(self: Path, _target: Path) -> None:
        seen.append(self.parent)
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(BlobStoreError):
            await disk.write_mark("second")
    assert seen == [tmp_path / "blobs"]
    assert (await disk.read_mark(), count_files(tmp_path)) == ("first", 1)


async def test_a_short_write_is_continued(disk: DiskBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole_write(descriptor, bytes(data)[:7]))
    blob = await put(disk, LARGE[:1000])
    assert await read(disk, blob.uri) == LARGE[:1000]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False).returncode:
        yield place
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


async def test_a_full_disk_is_told_and_usable_again_when_there_is_room(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small_disk.is_mount():  # only root may mount; elsewhere the second write finds the disk full
        Fault(monkeypatch, os, "write", nth=2, error=OSError(errno.ENOSPC, "full"), of=lambda *_: True)
    async with opened(DiskBlobStore(small_disk / "blobs")) as store:
        with pytest.raises(StoreFullError):
            await put(store, LARGE)
        assert count_files(small_disk) == 0
        blob = await put(store, LARGE[:500_000])
        assert await read(store, blob.uri) == LARGE[:500_000]


async def test_bytes_are_on_the_disk_before_they_have_an_address(disk: DiskBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def record(name: str, describe: Callable[..., str]) -> None:
        original = getattr(os, name)

        def recorded(*args: object, **options: object) -> object:
            result = original(*args, **options)
            steps.append(f"{name} {describe(*args)}")
            return result

        monkeypatch.setattr(os, name, recorded)

    def kind_of(descriptor: int) -> str:
        path = Path(f"/dev/fd/{descriptor}").resolve()
        return "folder " + ("objects" if path.name == "objects" else "of the blob") if path.is_dir() else f"file in {path.parent.name}"

    record("write", lambda *_: "bytes")
    record("fsync", kind_of)
    record("rename", lambda source, _target: f"from {Path(source).parent.name}")
    record("mkdir", lambda *_: "folder")
    async with disk.open_write() as writer:
        await writer.write(b"content")
        await writer.finish()
        steps.append("finished")
    assert steps == [
        "write bytes",
        "fsync file in incoming",
        "mkdir folder",
        "fsync folder objects",
        "rename from incoming",
        "fsync folder of the blob",
        "finished",
    ]


async def test_a_folder_another_process_has_just_made_is_synced_before_it_is_relied_on(
    disk: DiskBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(256):
        (tmp_path / "blobs" / "objects" / f"{number:02x}").mkdir()
    synced: list[str] = []
    original = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(Path(f"/dev/fd/{descriptor}").resolve().name)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    await put(disk, b"content")
    assert synced[1] == "objects"


def count_open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
def slow_sync(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[bool]]]:
    """The first sync of a file lasts until the event; whether its file was open all that time."""
    go_on, was_open = threading.Event(), list[bool]()
    original = os.fsync

    def sync(descriptor: int) -> None:
        if threading.current_thread().name.startswith("blob-syncs"):
            before = os.fstat(descriptor).st_ino
            go_on.wait(10)
            was_open.append(os.fstat(descriptor).st_ino == before)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr("app.blobs.disk.SYNC_EACH_BYTES", 1000)
    yield go_on, was_open
    go_on.set()


async def test_a_large_blob_is_synced_while_it_is_written(disk: DiskBlobStore, slow_sync: tuple[threading.Event, list[bool]]) -> None:
    go_on, was_open = slow_sync
    async with disk.open_write() as writer:
        for number in range(5):  # nobody waits for the disk
            await writer.write(LARGE[number * 1000 : number * 1000 + 1000])
        finishing = asyncio.create_task(writer.finish())
        await asyncio.sleep(0.1)
        assert not finishing.done()
        go_on.set()
        blob = await finishing
    assert was_open[0]
    assert await read(disk, blob.uri) == LARGE[:5000]


async def test_what_is_given_up_while_it_is_synced_is_closed_afterwards(
    disk: DiskBlobStore, tmp_path: Path, slow_sync: tuple[threading.Event, list[bool]]
) -> None:
    go_on, was_open = slow_sync
    open_files = count_open_files()
    giving_up = asyncio.create_task(give_up(disk, LARGE, LARGE))
    await asyncio.sleep(0.2)
    assert not giving_up.done()
    go_on.set()
    with pytest.raises(ZeroDivisionError):
        await giving_up
    assert was_open == [True]
    assert count_files(tmp_path) == 0
    assert count_open_files() == open_files


async def test_what_is_given_up_is_removed_though_nobody_waits_for_it(
    disk: DiskBlobStore, tmp_path: Path, slow_sync: tuple[threading.Event, list[bool]]
) -> None:
    go_on, was_open = slow_sync
    open_files = count_open_files()
    giving_up = asyncio.create_task(give_up(disk, LARGE))
    await asyncio.sleep(0.2)
    giving_up.cancel()
    await asyncio.wait([giving_up])
    assert count_files(tmp_path) == 1
    go_on.set()
    async with asyncio.timeout(5):
        while count_files(tmp_path):
            await asyncio.sleep(0.01)
    assert was_open == [True]
    assert count_open_files() == open_files


@pytest.mark.parametrize("number_of_batches", [1, 2])
@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, StoreFullError), (errno.EIO, BlobStoreError)])
async def test_what_a_sync_meets_while_a_blob_is_written_is_told(
    disk: DiskBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number_of_batches: int, number: int, expected: type[Exception]
) -> None:
    """The system tells of a lost write once, and it has told the sync."""
    monkeypatch.setattr("app.blobs.disk.SYNC_EACH_BYTES", 1000)
    fault = Fault(monkeypatch, os, "fsync", nth=1, error=OSError(number, "injected"))

    async def write() -> None:
        async with disk.open_write() as writer:
            for _ in range(number_of_batches):
                await writer.write(LARGE[:1000])
                await writer.write(b"")
                while not fault.has_struck:
                    await asyncio.sleep(0.001)
            await writer.finish()

    with pytest.raises(expected):
        await write()
    assert count_files(tmp_path) == 0


async def test_at_most_two_batches_are_under_way(disk: DiskBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    gate = asyncio.Event()
    run = DiskBlobStore.run

    async def held(self: DiskBlobStore, work: Callable[[], object]) -> object:
        await gate.wait()
        return await run(self, work)

    async def send(writer: BlobWriter) -> None:
        for number in range(5):
            await writer.write(b"batch")
            taken.append(number)

    async with disk.open_write() as writer:
        with monkeypatch.context() as patch:
            patch.setattr(DiskBlobStore, "run", held)
            sending = asyncio.create_task(send(writer))
            while not taken:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert taken == [0]  # the store works on the first, the second waits in the caller's hand
            gate.set()
            await sending
        assert (await writer.finish()).size_bytes == 25
