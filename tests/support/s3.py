"""Real S3 servers for the tests: rclone, which is up at once, and OpenStack Swift, which takes the protocol at its word."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aioboto3
import httpx
from aiobotocore.config import AioConfig

from app.blobs.s3 import S3Options
from app.blobs.store import MARK
from tests.support.postgres import START_SECONDS, free_port

ACCESS_KEY, SECRET_KEY = "test:tester", "testing-secret"
# The smallest that the protocol allows, so that few bytes make many parts.
PART_BYTES = 5 * 1024 * 1024
S3_KINDS = ("rclone", "swift")
_OF_SWIFT = ("account", "container", "object")  # its servers behind the proxy
_SESSION = aioboto3.Session()  # reads its description of S3 once


class NoS3Error(RuntimeError):
    """A server did not start; a test run without it would hide half of what it should show."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that nobody else uses, seen past the service."""

    endpoint: str
    name: str

    @property
    def environment(self) -> dict[str, str]:
        """The settings that make the service use it."""
        return {
            "SAASBASE_STORAGE__S3__ENDPOINT": self.endpoint,
            "SAASBASE_STORAGE__S3__BUCKET": self.name,
            "SAASBASE_STORAGE__S3__ACCESS_KEY": ACCESS_KEY,
            "SAASBASE_STORAGE__S3__SECRET_KEY": SECRET_KEY,
            "SAASBASE_STORAGE__S3__PART_BYTES": str(PART_BYTES),
        }

    @property
    def section(self) -> dict[str, Any]:
        """The same as a section of settings."""
        return {name.rpartition("__")[2].lower(): value for name, value in self.environment.items()}

    @property
    def options(self) -> S3Options:
        """How a store in this process reaches it."""
        return S3Options(self.name, endpoint=self.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, part_bytes=PART_BYTES)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        config = AioConfig(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", connect_timeout=60)
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        async with _SESSION.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=config, **keys) as client:
            yield client

    async def create(self) -> "Bucket":
        async with self.client() as client:
            await client.create_bucket(Bucket=self.name)
        return self

    async def keys(self) -> list[str]:
        """The key of every object but the mark."""
        async with self.client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
            return [listed["Key"] async for page in pages for listed in page.get("Contents", ()) if listed["Key"] != MARK]

    async def uploads(self) -> list[tuple[str, str]]:
        """Key and id of every multipart upload that was begun and not ended."""
        async with self.client() as client:
            try:
                found = await client.list_multipart_uploads(Bucket=self.name)
            except client.exceptions.NoSuchUpload:  # rclone's word for none
                return []
        return [(upload["Key"], upload["UploadId"]) for upload in found.get("Uploads", ())]

    async def addresses(self) -> set[str]:
        """The address that a store gives to each object and upload."""
        return {f"s3:{key}" for key in await self.keys()} | {f"s3:{key}/{upload_id}" for key, upload_id in await self.uploads()}

    async def read(self, key: str) -> bytes:
        async with self.client() as client:
            return bytes(await (await client.get_object(Bucket=self.name, Key=key))["Body"].read())

    async def replace(self, uri: str, content: bytes | None) -> None:
        """Put other bytes at an address, or none."""
        key = uri.removeprefix("s3:")
        async with self.client() as client:
            if content is None:
                await client.delete_object(Bucket=self.name, Key=key)
            else:
                await client.put_object(Bucket=self.name, Key=key, Body=content)

    async def count(self) -> int:
        """Everything it holds, unfinished uploads included."""
        return len(await self.keys()) + len(await self.uploads())


class S3Server:
    """A server of its own on a port of its own, with its data in a temporary folder."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix=f"saasbase-{kind}-"))
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._ports = [self.port] if kind == "rclone" else [*(free_port() for _ in _OF_SWIFT), self.port]
        self._commands = _rclone(self.folder, self.port) if kind == "rclone" else _swift(self.folder, self._ports)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start it; what it held before it was killed is there again."""
        log_path = self.folder / "log"
        with log_path.open("ab") as log:
            self._processes = [subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder) for command in self._commands]
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and all(process.poll() is None for process in self._processes):
            with suppress(httpx.TransportError):
                for port in self._ports:  # of Swift's servers all: its proxy is up first, and then answers 503
                    httpx.get(f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
                return
            time.sleep(0.05)
        raise NoS3Error(f"{self.kind} did not start: {log_path.read_text(errors='replace')[-2000:]}")

    def kill(self) -> None:
        """kill -9."""
        for process in self._processes:
            process.kill()
            process.wait(60)

    def pause(self) -> None:
        """It takes connections and does not answer."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    def resume(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGCONT)

    def new_bucket(self) -> Bucket:
        return asyncio.run(self.make_bucket())

    async def make_bucket(self) -> Bucket:
        return await Bucket(self.endpoint, f"test-{uuid4().hex}").create()


@contextmanager
def run_s3(kind: str) -> Iterator[S3Server]:
    """A server for the block."""
    server = S3Server(kind)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)


def _rclone(folder: Path, port: int) -> list[list[str | Path]]:
    (folder / "data").mkdir()
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    return [[_program("rclone"), "serve", "s3", *options, "--config", folder / "none", folder / "data"]]


def _swift(folder: Path, ports: list[int]) -> list[list[str | Path]]:
    (folder / "devices/d1").mkdir(parents=True)
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = one\ndefault = yes\n")
    user = pwd.getpwuid(os.geteuid()).pw_name
    common = f"[DEFAULT]\nbind_ip = 127.0.0.1\nworkers = 0\nuser = {user}\nswift_dir = {folder}\nlog_level = ERROR\n"
    for kind, place in zip(_OF_SWIFT, ports, strict=False):
        for step in (["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{place}/d1", "1"], ["rebalance"]):
            command: list[str | Path] = [_program("swift-ring-builder"), folder / f"{kind}.builder", *step]
            subprocess.run(command, check=True, capture_output=True)
        (folder / f"{kind}.conf").write_text(
            f"{common}bind_port = {place}\ndevices = {folder}/devices\nmount_check = false\ndisable_fallocate = true\n"
            f"fallocate_reserve = 0\n[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
    (folder / "proxy.conf").write_text(
        f"{common}bind_port = {ports[-1]}\n[pipeline:main]\npipeline = catch_errors s3api auth slo proxy-server\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n[filter:catch_errors]\nuse = egg:swift#catch_errors\n"
        "[filter:s3api]\nuse = egg:swift#s3api\nauth_pipeline_check = false\nlocation = us-east-1\n"
        f"[filter:auth]\nuse = egg:swift#tempauth\nuser_{ACCESS_KEY.replace(':', '_')} = {SECRET_KEY} .admin\n"
        "[filter:slo]\nuse = egg:swift#slo\n"
    )
    return [[_program(f"swift-{kind}-server"), folder / f"{kind}.conf"] for kind in (*_OF_SWIFT, "proxy")]


def _program(name: str) -> Path:
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise NoS3Error(f"{name} is not installed beside this Python; 'make test' installs it")
    return path
