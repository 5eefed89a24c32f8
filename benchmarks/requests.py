"""Requests per second and latencies of the common routes, on SQLite and PostgreSQL, beside the reference."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from benchmarks.load import Load, Target, run_load, tool
from benchmarks.servers import ACTOR, OURS, REFERENCE, Running, new_postgres_database, run_ours, run_reference
from tests.support.postgres import free_port, run_postgres

MIB: Final = 1024 * 1024
BOUNDARY: Final = "bench-0123456789abcdef"
DATABASES: Final = ("SQLite", "PostgreSQL")
CONNECTIONS: Final = (1, 16)

GET_ORGANIZATION, GET_PROJECT, GET_DOCUMENT = "GET organization", "GET project", "GET document"
LIST_PAGE, LIST_CURSOR = "list 20 projects, page and total", "list 20 projects, keyset"
POST_ORGANIZATION, POST_PROJECT = "POST organization", "POST project"
UPLOAD, DOWNLOAD = "upload 1 MiB", "download 1 MiB"
WORKLOADS: Final = (
    GET_ORGANIZATION,
    GET_PROJECT,
    GET_DOCUMENT,
    LIST_PAGE,
    LIST_CURSOR,
    POST_ORGANIZATION,
    POST_PROJECT,
    UPLOAD,
    DOWNLOAD,
)

Key = tuple[str, str, str, int]
"""Server, database, workload, connections."""


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement. The CPU time of the server process (not of PostgreSQL) is what a busy machine disturbs least."""

    load: Load
    cpu_us: float


def prepare(server: Running, projects: int) -> dict[str, Target]:
    """Create what the requests ask for; workloads the server cannot do are left out."""
    organization, project = server.new_project()
    with httpx.Client(base_url=server.url, headers=ACTOR, timeout=60) as client:
        for number in range(projects - 1):
            body = {"organization_id": organization, "name": f"project {number}"}
            client.post("/api/projects", json=body).raise_for_status()
    other = server.post("/organizations", {"slug": "grows"})["id"]  # so that the measured list stays as long as it is
    listed = f"/api/projects?organization_id={organization}"
    as_json = {**ACTOR, "Content-Type": "application/json"}
    targets = {
        GET_ORGANIZATION: Target("GET", f"/api/organizations/{organization}", ACTOR),
        GET_PROJECT: Target("GET", f"/api/projects/{project}", ACTOR),
        LIST_PAGE: Target("GET", f"{listed}&page=0&size=20", ACTOR),
        POST_ORGANIZATION: Target("POST", "/api/organizations", as_json, b'{"slug": "bench-@unique@"}'),
        POST_PROJECT: Target("POST", "/api/projects", as_json, json.dumps({"organization_id": other, "name": "p @unique@"}).encode()),
    }
    if server.name == OURS:
        targets[LIST_CURSOR] = Target("GET", f"{listed}&limit=20", ACTOR)
    upload = Target("POST", f"/api/projects/{project}/documents", _multipart_headers(), _multipart(os.urandom(MIB)))
    answer = httpx.request("POST", server.url + upload.path, headers=upload.headers, content=upload.body, timeout=60)
    if answer.status_code == httpx.codes.CREATED:
        document = answer.json()["id"]
        targets[GET_DOCUMENT] = Target("GET", f"/api/documents/{document}", ACTOR)
        targets[UPLOAD] = upload
        targets[DOWNLOAD] = Target("GET", f"/api/documents/{document}/content", ACTOR)
    return targets


def _multipart_headers() -> dict[str, str]:
    return {**ACTOR, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def _multipart(content: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\nContent-Type: application/octet-stream\r\n\r\n'
    )
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def print_ceiling(seconds: int) -> None:
    """How many requests the load tool makes of a server that does nothing."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.trivial", str(port)], cwd=Path(__file__).parents[1])
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url)
        print(f"\nCeiling of {tool()}, 16 connections, against a server that does nothing:")
        for name, target in (
            ("300 bytes", Target("GET", "/", ACTOR)),
            ("POST with another body each time", Target("POST", "/", ACTOR, b'{"slug": "bench-@unique@"}')),
            ("upload 1 MiB", Target("POST", "/", _multipart_headers(), _multipart(os.urandom(MIB)))),
            ("download 1 MiB", Target("GET", "/large", ACTOR)),
        ):
            print(f"- {name}: {run_load(url, target, 16, seconds).per_second:,.0f}/s")
    finally:
        process.terminate()
        process.wait(10)


def _wait(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return


@contextmanager
def run_servers(folder: Path) -> Iterator[dict[tuple[str, str], Running]]:
    """All servers at once; the load goes to one at a time."""
    with ExitStack() as stack:
        postgres = stack.enter_context(run_postgres())
        yield {
            (OURS, "SQLite"): stack.enter_context(run_ours(folder / "ours-sqlite")),
            (REFERENCE, "SQLite"): stack.enter_context(run_reference(folder / "reference-sqlite")),
            (OURS, "PostgreSQL"): stack.enter_context(run_ours(folder / "ours-postgresql", new_postgres_database(postgres))),
            (REFERENCE, "PostgreSQL"): stack.enter_context(run_reference(folder / "reference-postgresql", new_postgres_database(postgres))),
        }


def measure(folder: Path, given: argparse.Namespace) -> dict[Key, list[Result]]:
    """Every workload on every server, one after the other, ``repeat`` times."""
    results: dict[Key, list[Result]] = defaultdict(list)
    with run_servers(folder) as servers:
        targets = {name: prepare(server, given.projects) for name, server in servers.items()}
        for repeat in range(given.repeat):
            for workload in WORKLOADS:
                print(f"run {repeat + 1}: {workload}", file=sys.stderr, flush=True)
                for connections in CONNECTIONS:
                    for name, server in servers.items():
                        if workload in targets[name]:
                            cpu = server.cpu_seconds()
                            load = run_load(server.url, targets[name][workload], connections, given.seconds)
                            cpu_us = (server.cpu_seconds() - cpu) * 1e6 / max(load.per_second * given.seconds, 1)
                            results[(*name, workload, connections)].append(Result(load, cpu_us))
    return results


def report(results: dict[Key, list[Result]]) -> None:
    """Print a table for each database."""
    for database in DATABASES:
        print(f"\n### {database}\n")
        columns = "requests/s | p50 ms | p99 ms | CPU us"
        print(f"| workload | connections | ours: {columns} | reference: {columns} | ratio of requests/s (lowest to highest) | of CPU |")
        print("|---" * 12 + "|")
        for workload in WORKLOADS:
            for connections in CONNECTIONS:
                ours = results[OURS, database, workload, connections]
                # The reference knows no keyset pages: the same question is its numbered page.
                asked = LIST_PAGE if workload == LIST_CURSOR else workload
                its = results.get((REFERENCE, database, asked, connections), [])
                print(f"| {workload} | {connections} | {_cells(ours)} | {_cells(its)} | {_ratios(ours, its)} |")


def _cells(results: list[Result]) -> str:
    if not results:
        return "fails | | | "
    failed = " (some fail)" if any(result.load.failed for result in results) else ""
    rate, p50, p99 = (statistics.median(getattr(result.load, name) for result in results) for name in ("per_second", "p50_ms", "p99_ms"))
    return f"{rate:,.0f}{failed} | {p50:.1f} | {p99:.1f} | {statistics.median(result.cpu_us for result in results):,.0f}"


def _ratios(ours: list[Result], its: list[Result]) -> str:
    if not its:
        return " | "
    pairs = list(zip(ours, its, strict=True))
    rates = [mine.load.per_second / max(other.load.per_second, 0.01) for mine, other in pairs]
    cpu = statistics.median(mine.cpu_us / max(other.cpu_us, 0.01) for mine, other in pairs)
    return f"{statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f}) | {cpu:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--projects", type=int, default=1000, help="length of the list that is paged through")
    parser.add_argument("--folder", type=Path, help="where the servers keep their data; a temporary folder when absent")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end with the script
    with tempfile.TemporaryDirectory(prefix="saasbase-bench-", dir=given.folder) as name:
        results = measure(Path(name), given)
    print(f"Load by {tool()}; medians of {given.repeat} interleaved runs of {given.seconds} s; ratios are made within each run.")
    report(results)
    print_ceiling(given.seconds)


if __name__ == "__main__":
    main()
