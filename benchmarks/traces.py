"""A trace of many executions: put on record in batches, and read as a tree and as a time line."""

import argparse
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.servers import ACTOR, Running, run_both

BATCH: Final = 500
WIDTH: Final = 5  # children of each execution
VIEWS: Final = ("tree", "timeline")


class IncompleteError(RuntimeError):
    """A trace has not the executions it should have."""


def record(client: httpx.Client, project: str, count: int) -> tuple[str, list[float]]:
    """Start and end so many executions of one trace; its root, and the milliseconds of each full batch."""
    ids: list[str] = []
    taken = []
    path = f"/api/projects/{project}/executions/batch"
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        for items in ([start(number, first, ids) for number in numbers], None):
            sent = items or [end(execution_id) for execution_id in ids[first:]]
            begun = time.perf_counter()
            response = client.post(path, json={"items": sent}).raise_for_status()
            if len(sent) == BATCH:
                taken.append((time.perf_counter() - begun) * 1000)
            if items is not None:
                ids += [result["execution"]["id"] for result in response.json()["results"]]
    return ids[0], taken


def start(number: int, first: int, ids: list[str]) -> dict[str, Any]:
    """An execution below its parent, which this batch or one before it starts."""
    item = {"op": "start", "operation": f"step {number}", "kind": "LLM", "model_name": "m-1", "input": {"messages": ["x" * 200]}}
    if number == 0:
        return item
    parent = (number - 1) // WIDTH
    return {**item, **({"parent_index": parent - first} if parent >= first else {"parent_execution_id": ids[parent]})}


def end(execution_id: str) -> dict[str, Any]:
    """Its end."""
    usage, cost = {"input_tokens": 1200, "output_tokens": 80}, {"amount": "0.002"}
    return {"op": "complete", "execution_id": execution_id, "output": {"text": "y" * 200}, "usage": usage, "cost": cost}


def measure(name: str, server: Running, given: argparse.Namespace) -> None:
    """Print what recording and reading cost on one database."""
    _, project = server.new_project()
    with httpx.Client(base_url=server.url, headers=ACTOR, timeout=60) as client:
        small, _ = record(client, project, 10)
        for view in VIEWS:
            client.get(f"/api/executions/{small}/{view}").raise_for_status()
        root, taken = record(client, project, given.executions)
        totals = client.get(f"/api/executions/{root}/tree").json()["root"]["totals"]
        if totals["by_status"] != {"COMPLETED": given.executions}:
            raise IncompleteError(f"{totals}")
        written = f"{statistics.median(taken):,.0f}" if taken else "none"
        for view in VIEWS:
            idle, times = server.rss_mib(), []
            server.forget_peak()
            cpu = server.cpu_seconds()
            for _ in range(given.rounds):
                begun = time.perf_counter()
                response = client.get(f"/api/executions/{root}/{view}").raise_for_status()
                times.append((time.perf_counter() - begun) * 1000)
            cpu_ms = (server.cpu_seconds() - cpu) * 1000 / given.rounds
            size, growth = len(response.content) / 1024, server.peak_mib() - idle
            spread = f"{statistics.median(times):,.0f} ({min(times):,.0f} to {max(times):,.0f})"
            print(f"| {name}, {view} | {spread} | {cpu_ms:,.0f} | {size:,.0f} | {growth:+.1f} | {written} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end with the script
    print(f"{given.executions} executions in one trace, {WIDTH} below each, read {given.rounds} times\n")
    print(f"| | ms (lowest to highest) | server CPU ms | KiB | peak over idle MiB | batch of {BATCH}, ms |")
    print("|---" * 6 + "|")
    with tempfile.TemporaryDirectory(prefix="saasbase-bench-") as name, run_both(Path(name)) as servers:
        for database, (server, _) in servers.items():
            measure(database, server, given)


if __name__ == "__main__":
    main()
