"""An audit trail of a million events exported as NDJSON and as CSV: rows per second, and memory of the server."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx

from app.core.resources import ResourceRef, ResourceType
from benchmarks.servers import ACTOR, Running, run_both
from tests.support import rows
from tests.support.database import open_database
from tests.support.rows import Place

CHUNK: Final = 20_000
FORMATS: Final = ("ndjson", "csv")


class IncompleteError(RuntimeError):
    """An export has not the rows it should have."""


async def seed(url: str, organization: str, project: str, count: int) -> None:
    """Write events of the project, a millisecond apart."""
    place = Place(ResourceRef(ResourceType.PROJECT, UUID(project)), UUID(organization), UUID(project))
    begun = time.perf_counter()
    async with open_database(url) as database:
        for first in range(0, count, CHUNK):
            numbers = range(first, min(first + CHUNK, count))
            ((model, row),) = rows.event(place)
            told = {
                "ip": "203.0.113.7",
                "user_agent": "curl/8.5.0",
                "correlation_id": "order-7",
                "details": {"name": "project", "number": 7},
            }
            moments = [(rows.event(place)[0][1]["id"], rows.BEGINNING + timedelta(milliseconds=number)) for number in numbers]
            await rows.write(database, [(model, {**row, **told, "id": id_, "occurred_at": moment}) for id_, moment in moments])
    print(f"seeded {url.partition(':')[0]} in {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


def export(server: Running, organization: str, format_: str) -> tuple[int, int]:
    """Receive an export and throw it away; its lines and bytes."""
    lines = size = 0
    query = {"organization_id": organization, "format": format_}
    with httpx.stream("GET", f"{server.url}/api/audit-events/export", params=query, headers=ACTOR, timeout=120) as response:
        response.raise_for_status()
        for chunk in response.iter_raw():
            lines += chunk.count(b"\n")
            size += len(chunk)
    return lines, size


def measure(name: str, server: Running, url: str, count: int) -> None:
    """Print what an export in each format costs on one database."""
    organization, project = server.new_project()
    for format_ in FORMATS:
        export(server, organization, format_)
    idle = server.rss_mib()
    asyncio.run(seed(url, organization, project, count))
    for format_ in FORMATS:
        server.forget_peak()
        cpu, begun = server.cpu_seconds(), time.perf_counter()
        lines, size = export(server, organization, format_)
        seconds, cpu = time.perf_counter() - begun, server.cpu_seconds() - cpu
        if lines < count:
            raise IncompleteError(f"{lines} lines of {count}")
        told = f"{lines / seconds:,.0f} | {size / seconds / 1024**2:.1f} | {seconds:.1f} | {cpu:.1f} | {server.peak_mib() - idle:+.1f}"
        print(f"| {name}, {format_} | {told} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end with the script
    print(f"{given.events:,} events\n\n| | rows/s | MiB/s | s | server CPU s | peak over idle MiB |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory(prefix="saasbase-bench-") as name, run_both(Path(name)) as servers:
        for database, (server, url) in servers.items():
            measure(database, server, url, given.events)


if __name__ == "__main__":
    main()
