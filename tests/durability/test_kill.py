"""kill -9 at random moments: every acknowledged write is there after the restart, and no row without its bytes."""

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support.inventory import Inventory, take_inventory
from tests.support.s3 import PART_BYTES, Bucket, S3Server
from tests.support.server import Server, run_server

ROUNDS = 5
WRITERS = 6
SEED = random.randrange(1 << 30)  # shown by the assertion that fails


@dataclass(slots=True)
class Acknowledged:
    """What the server has said is done."""

    checksums: dict[tuple[str, str], str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)


def _connect(server: Server) -> httpx.Client:
    return httpx.Client(base_url=f"{server.url}/api", headers={"X-SaaSBase-Actor": "user:alice"}, timeout=60, verify=False)


def _make_project(server: Server) -> str:
    with _connect(server) as client:
        organization = client.post("/organizations", json={"slug": "kill"}).raise_for_status().json()
        project = client.post("/projects", json={"organization_id": organization["id"], "name": "p"}).raise_for_status().json()
    return str(project["id"])


def _write_until_killed(server: Server, project_id: str, seed: int, done: Acknowledged, count: Callable[[], None]) -> None:
    chance = random.Random(seed)
    with _connect(server) as client:
        try:
            while True:
                content = chance.randbytes(chance.choice([10, 5_000, 300_000, 2_500_000, PART_BYTES + 1_000]))
                file = {"file": ("f.bin", content)}
                created = client.post(f"/projects/{project_id}/documents", files=file)
                assert created.status_code == 201, created.text
                document_id = created.json()["id"]
                done.checksums[document_id, "v1"] = hashlib.sha256(content).hexdigest()
                count()
                version = client.post(f"/documents/{document_id}/versions", files=file, data={"version_name": "v2"})
                assert version.status_code == 201, version.text
                done.checksums[document_id, "v2"] = hashlib.sha256(content).hexdigest()
                count()
                name = uuid4().hex
                # Once it is asked for, either name is right until the answer says which.
                done.names.pop(document_id, None)
                assert client.patch(f"/documents/{document_id}", json={"name": name}).status_code == 200
                done.names[document_id] = name
                if chance.random() < 0.3:
                    kept = {key: done.checksums.pop(key) for key in list(done.checksums) if key[0] == document_id}
                    del done.names[document_id]
                    assert kept
                    assert client.delete(f"/documents/{document_id}").status_code == 204
                    done.deleted.add(document_id)
                count()
        except httpx.TransportError:
            return


def _check_everything(server: Server, done: Acknowledged) -> None:
    with _connect(server) as client:
        for (document_id, version), checksum in done.checksums.items():
            answer = client.get(f"/documents/{document_id}/versions/{version}/content")
            assert answer.status_code == 200, (SEED, answer.text)
            assert hashlib.sha256(answer.content).hexdigest() == checksum, SEED
        for document_id, name in done.names.items():
            assert client.get(f"/documents/{document_id}").json()["name"] == name, SEED
        for document_id in done.deleted:
            assert client.get(f"/documents/{document_id}").status_code == 404, SEED


@pytest.fixture(params=["disk", "s3"])
def bucket(request: pytest.FixtureRequest) -> Bucket | None:
    """Where contents lie when it is not the disk."""
    if request.param == "disk":
        return None
    server: S3Server = request.getfixturevalue("rclone_server")
    return server.new_bucket()


def test_what_was_acknowledged_survives_kill_9(database_url: str, tmp_path: Path, bucket: Bucket | None) -> None:
    everything, chance = Acknowledged(), random.Random(SEED)
    settings = bucket.environment if bucket is not None else {}
    project_id = ""
    for number in range(ROUNDS):
        with run_server(database_url, tmp_path, workers=1, **settings) as server:
            project_id = project_id or _make_project(server)
            _check_everything(server, everything)
            before = len(everything.checksums)
            done = [Acknowledged() for _ in range(WRITERS)]
            answers = threading.Semaphore(0)
            arguments = [(server, project_id, SEED + 100 * number + n, done[n], answers.release) for n in range(WRITERS)]
            writers = [threading.Thread(target=_write_until_killed, args=args) for args in arguments]
            for writer in writers:
                writer.start()
            for _ in range(chance.randint(WRITERS, 4 * WRITERS)):
                assert answers.acquire(timeout=60)
            time.sleep(chance.uniform(0, 0.05))
            server.kill()
            for writer in writers:
                writer.join(90)
            for part in done:
                everything.checksums |= part.checksums
                everything.names |= part.names
                everything.deleted |= part.deleted
            assert len(everything.checksums) + len(everything.deleted) > before
        _inventory(database_url, tmp_path, bucket).check()
    settings["SAASBASE_STORAGE__SWEEP_MIN_AGE_SECONDS"] = "0"
    with run_server(database_url, tmp_path, workers=1, **settings) as server:
        server.wait_for_first_sweep()
        _check_everything(server, everything)
    found = _inventory(database_url, tmp_path, bucket)
    found.check()
    assert (found.incoming, found.orphans) == ([], set()), SEED


def _inventory(database_url: str, folder: Path, bucket: Bucket | None) -> Inventory:
    return asyncio.run(take_inventory(database_url, folder, bucket))
