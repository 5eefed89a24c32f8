"""Writers that go on whatever happens, and remember what they were told."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.support.server import Server

WRITERS = 8
SIZES = (10, 5_000, 300_000, 1_500_000)


@dataclass(slots=True)
class Load:
    """What was acknowledged, what was refused, and what nobody can know: a change whose answer was a refusal may have been made."""

    client: httpx.AsyncClient
    project_id: str
    chance: random.Random
    checksums: dict[tuple[str, str], str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    refused: Counter[tuple[int, str]] = field(default_factory=Counter)
    succeeded: int = 0
    _is_over: bool = False
    _writers: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Set the writers to work."""
        self._writers = [asyncio.create_task(self.write()) for _ in range(WRITERS)]

    async def wait_for(self, count: int) -> None:
        """Wait until that many more changes were acknowledged."""
        wanted = self.succeeded + count
        await self._wait_until(lambda: self.succeeded >= wanted)

    async def wait_for_refusals(self, count: int) -> None:
        """Wait until that many more were refused."""
        wanted = self.refused.total() + count
        await self._wait_until(lambda: self.refused.total() >= wanted)

    async def finish(self) -> None:
        """Let nobody begin anything more, and wait for what was begun."""
        self._is_over = True
        await asyncio.gather(*self._writers)

    async def write(self) -> None:
        """Create, add a version, rename and delete documents until the end."""
        while not self._is_over:
            content = self.chance.randbytes(self.chance.choice(SIZES))
            checksum = hashlib.sha256(content).hexdigest()
            file: Any = {"file": ("f.bin", content)}
            created = await self._ask("POST", f"/projects/{self.project_id}/documents", files=file)
            if created is None:
                continue
            document_id = created.json()["id"]
            self.checksums[document_id, "v1"] = checksum
            if await self._ask("POST", f"/documents/{document_id}/versions", files=file, data={"version_name": "v2"}) is not None:
                self.checksums[document_id, "v2"] = checksum
            name = uuid4().hex
            if await self._ask("PATCH", f"/documents/{document_id}", json={"name": name}) is not None:
                self.names[document_id] = name
            if self.chance.random() < 0.3:
                await self.remove(document_id)

    async def remove(self, document_id: str) -> None:
        """Delete a document; once it is asked for, it may be there or not until the answer says which."""
        for key in [key for key in self.checksums if key[0] == document_id]:
            del self.checksums[key]
        self.names.pop(document_id, None)
        if await self._ask("DELETE", f"/documents/{document_id}") is not None:
            self.deleted.add(document_id)

    async def check(self) -> None:
        """Everything that was acknowledged is there, and downloads with its checksum."""
        assert self.checksums
        for (document_id, version), checksum in self.checksums.items():
            answer = await self.client.get(f"/documents/{document_id}/versions/{version}/content")
            assert (answer.status_code, hashlib.sha256(answer.content).hexdigest()) == (200, checksum), answer.text[:500]
        for document_id, name in self.names.items():
            assert (await self.client.get(f"/documents/{document_id}")).json()["name"] == name
        for document_id in self.deleted:
            assert (await self.client.get(f"/documents/{document_id}")).status_code == 404

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(180):
            while not holds():
                for writer in self._writers:
                    if writer.done():
                        writer.result()  # raises what it met
                await asyncio.sleep(0.01)

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """The answer, or None for a refusal, which is a problem and says when to come again."""
        answer = await self.client.request(method, path, **options)
        if answer.is_success:
            self.succeeded += 1
            return answer
        assert answer.headers["content-type"] == "application/problem+json", answer.text[:500]
        assert answer.status_code == 507 or "retry-after" in answer.headers, answer.text
        self.refused[answer.status_code, answer.json()["code"]] += 1
        await asyncio.sleep(0.02)
        return None


@asynccontextmanager
async def put_under_load(server: Server, seed: int) -> AsyncIterator[Load]:
    """Writers at work in a project of alice's until they are told to finish."""
    headers = {"X-SaaSBase-Actor": "user:alice"}
    limits = httpx.Limits(max_connections=2 * WRITERS)
    async with httpx.AsyncClient(base_url=f"{server.url}/api", headers=headers, timeout=180, limits=limits, verify=False) as client:
        organization = (await client.post("/organizations", json={"slug": "load"})).raise_for_status().json()
        project = (await client.post("/projects", json={"organization_id": organization["id"], "name": "p"})).raise_for_status().json()
        load = Load(client, project["id"], random.Random(seed))
        load.start()
        try:
            yield load
        finally:
            await load.finish()
