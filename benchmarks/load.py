"""Requests over keep-alive connections: by wrk where it is installed, else by a small client of our own."""

import asyncio
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit
from uuid import uuid4

import uvloop

UNIQUE: Final = "@unique@"

_LUA: Final = """
wrk.method = %(method)s
%(headers)s
local file = io.open(%(body_path)s, "rb")
local body = file:read("*a")
file:close()
if #body > 0 then wrk.body = body end
if %(is_unique)s then
  local n = 0
  request = function()
    n = n + 1
    return wrk.format(nil, nil, nil, (body:gsub("@unique@", %(prefix)s .. n)))
  end
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%f %%f %%f %%d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, e.status + e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A request that is sent again and again; ``@unique@`` in its body becomes another text each time."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_unique(self) -> bool:
        """Whether the body changes from request to request."""
        return len(self.body) < 10_000 and UNIQUE.encode() in self.body


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def run_load(url: str, target: Target, connections: int, seconds: int) -> Load:
    """Send the request on so many connections for so long."""
    if (wrk := shutil.which("wrk")) is not None:
        return _run_wrk(wrk, url, target, connections, seconds)
    return uvloop.run(_run_own(url, target, connections, seconds))


def tool() -> str:
    """The name of the load generator."""
    return "wrk" if shutil.which("wrk") else "the client in benchmarks/load.py"


def _run_wrk(wrk: str, url: str, target: Target, connections: int, seconds: int) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        body_path, script_path = Path(folder) / "body", Path(folder) / "load.lua"
        body_path.write_bytes(target.body)
        values = {
            "method": json.dumps(target.method),
            "headers": "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in target.headers.items()),
            "body_path": json.dumps(str(body_path)),
            "is_unique": "true" if target.is_unique else "false",
            "prefix": json.dumps(uuid4().hex[:8] + "-"),
        }
        script_path.write_text(_LUA % values)
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script_path), url + target.path]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    per_second, p50, p99, failed = line.split()[1:]
    return Load(float(per_second), float(p50), float(p99), int(failed))


async def _run_own(url: str, target: Target, connections: int, seconds: int) -> Load:
    loop, parts = asyncio.get_running_loop(), urlsplit(url)
    clients = [_Client(target, f"{uuid4().hex[:8]}-{number}") for number in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, parts.hostname or "", parts.port or 80)  # type: ignore[misc]
    started = time.perf_counter()
    for client in clients:
        client.send()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - started
    for client in clients:
        client.stop()
    latencies = sorted(latency * 1000 for client in clients for latency in client.latencies)
    if len(latencies) < 2:
        return Load(0, 0, 0, 1 + sum(client.failed for client in clients))
    percentiles = statistics.quantiles(latencies, n=100)
    return Load(len(latencies) / elapsed, percentiles[49], percentiles[98], sum(client.failed for client in clients))


class _Client(asyncio.Protocol):
    """One connection: sends the next request when the answer to the last one is whole."""

    def __init__(self, target: Target, prefix: str) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self._target, self._prefix = target, prefix
        self._head, self._rest = b"", -1
        self._is_stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.failed += not self._is_stopped

    def send(self) -> None:
        body = self._target.body
        if self._target.is_unique:
            body = body.replace(UNIQUE.encode(), f"{self._prefix}-{len(self.latencies)}".encode())
        lines = [f"{self._target.method} {self._target.path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self._target.headers.items()]
        self._started = time.perf_counter()
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def stop(self) -> None:
        self._is_stopped = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._rest < 0:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self.failed += not head.startswith(b"HTTP/1.1 2")
            length = head.lower().partition(b"content-length:")[2].split(maxsplit=1)
            self._rest = int(length[0]) if length else 0
        self._rest -= len(data)
        if self._rest <= 0 and not self._is_stopped:
            self.latencies.append(time.perf_counter() - self._started)
            self._head, self._rest = b"", -1
            self.send()
