"""Requests over keep-alive connections: by wrk where it is installed, else by a small client of our own."""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.servers import Running, wait_until_idle

ENOUGH: Final = 4  # answers on each connection
PATIENCE: Final = 4
LAST_SECONDS: Final = 30

_LUA: Final = """
wrk.method = %(method)s
%(headers)s
local file = io.open(%(body_path)s, "rb")
local body = file:read("*a")
file:close()
if #body > 0 then wrk.body = body end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%f %%f %%f %%d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, e.status + e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is sent again and again."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float = 0
    """Of all processes of the server, for each request; without the database's. It is what a busy machine disturbs least."""
    tool_cores: float = 0
    """How much of the machine the load tool itself took."""


def run_load(server: Running, request: Request, connections: int, seconds: float) -> Load:
    """Send the request on so many connections for so long, and wait until everything rests again.

    What answers so slowly that little is learned gets ``PATIENCE`` times as long, and what does not answer at all ``LAST_SECONDS``.
    Connections that get no answer then have failed.
    """
    load = _time_load(server, request, connections, seconds)
    if load.per_second * seconds < ENOUGH * connections:
        load = _time_load(server, request, connections, seconds * PATIENCE)
    if not load.per_second:
        load = _time_load(server, request, connections, LAST_SECONDS)
    return load if load.per_second else replace(load, failed=load.failed + connections)


def _time_load(server: Running, request: Request, connections: int, seconds: float) -> Load:
    cpu, own = server.cpu_seconds(), sum(os.times()[:4])
    wrk = shutil.which("wrk") if seconds >= 1 else None  # it knows whole seconds only
    if wrk is not None:
        load = _run_wrk(wrk, server.url, request, connections, round(seconds))
    else:
        load = uvloop.run(_run_own(server.url, request, connections, seconds))
    cpu_us = (server.cpu_seconds() - cpu) * 1e6 / max(load.per_second * seconds, 1)
    tool_cores = (sum(os.times()[:4]) - own) / seconds
    wait_until_idle()
    return replace(load, cpu_us=cpu_us, tool_cores=tool_cores)


def tool() -> str:
    """The name and version of the load generator."""
    if (wrk := shutil.which("wrk")) is None:
        return "the client in benchmarks/load.py"
    words = subprocess.run([wrk, "-v"], check=False, capture_output=True, text=True).stdout.split()
    return f"wrk {words[1].removeprefix('debian/').partition('-')[0]}"


def _run_wrk(wrk: str, url: str, request: Request, connections: int, seconds: int) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        body_path, script_path = Path(folder) / "body", Path(folder) / "load.lua"
        body_path.write_bytes(request.body)
        values = {
            "method": json.dumps(request.method),
            "headers": "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in request.headers.items()),
            "body_path": json.dumps(str(body_path)),
        }
        script_path.write_text(_LUA % values)
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script_path), url + request.path]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT "))
    per_second, p50, p99, failed = line.split()[1:]
    return Load(float(per_second), float(p50), float(p99), int(failed))


async def _run_own(url: str, request: Request, connections: int, seconds: float) -> Load:
    loop, parts = asyncio.get_running_loop(), urlsplit(url)
    clients = [_Client(request) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, parts.hostname or "", parts.port or 80)  # type: ignore[misc]
    started = time.perf_counter()
    for client in clients:
        client.send()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - started
    for client in clients:
        client.stop()
    latencies = [latency * 1000 for client in clients for latency in client.latencies]
    percentiles = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    return Load(len(latencies) / elapsed, percentiles[49], percentiles[98], sum(client.failed for client in clients))


class _Client(asyncio.Protocol):
    """One connection: sends the next request when the answer to the last one is whole."""

    def __init__(self, request: Request) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        lines = [f"{request.method} {request.path} HTTP/1.1", "Host: bench", f"Content-Length: {len(request.body)}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        self._sent = "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body
        self._head, self._rest = b"", -1
        self._is_stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.failed += not self._is_stopped

    def send(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._sent)

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
