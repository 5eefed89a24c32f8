"""What the benchmarks tell of their measurements: a ratio, a verdict or a success that was not there would never be noticed."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.__main__ import explain_parts, tell
from benchmarks.load import Load, Request, run_load
from benchmarks.report import render_verdicts
from benchmarks.results import Results
from benchmarks.servers import CONFINED, OURS, REFERENCE, Running, run_process, wait_until_open
from benchmarks.targets import MANY, USUAL, Verdict, judge
from benchmarks.workloads import WORKLOADS, WrongAnswerError
from benchmarks.worlds import POSTGRESQL, QUIET, SIDES, World
from tests.support.postgres import free_port


def results_of(rates: dict[str, list[float]], connections: int = USUAL, p99_ms: float = 1) -> Results:
    """Reads with a key on PostgreSQL, by program and run."""
    results = Results()
    for program, runs in rates.items():
        for rate in runs:
            results.add(("get-key", (program, POSTGRESQL), connections), Load(rate, 1, p99_ms, 0))
    return results


def verdict_on(measure: str, results: Results) -> Verdict:
    (verdict,) = (verdict for verdict in judge(results) if verdict.measure.startswith(measure))
    return verdict


SLOW = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
class Slow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(0.5)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Slow).serve_forever()
"""


@pytest.fixture
def nothing(tmp_path: Path) -> Iterator[Running]:
    """A server that keeps its connections and finds nothing."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "fastapi:FastAPI", "--port", str(port)]
    with run_process(command, tmp_path / "log") as process:
        yield wait_until_open(Running(OURS, f"http://127.0.0.1:{port}", process.pid))


def test_a_ratio_is_made_within_each_run() -> None:
    results = results_of({OURS: [100, 10, 60], REFERENCE: [50, 1, 1]})
    found = results.ratio(("get-key", (OURS, POSTGRESQL), USUAL), ("get-key", (REFERENCE, POSTGRESQL), USUAL))
    assert found is not None
    assert (found.median, found.lowest, found.highest) == (10, 2, 60)


@pytest.mark.parametrize(("rate", "is_met"), [(300.0, True), (299.0, False)])
def test_whether_a_target_is_met_is_computed(rate: float, is_met: bool) -> None:
    verdict = verdict_on("times the reference", results_of({OURS: [rate], CONFINED: [150], REFERENCE: [10]}))
    assert (verdict.value, verdict.confined) == (rate / 10, 15)
    assert verdict.is_met(rate / 10) is is_met
    assert f"| {'yes' if is_met else '**no**'} | 15.0 | **no** |" in render_verdicts([verdict])[-2]


@pytest.mark.parametrize(("p99_ms", "is_met"), [(4, True), (4.1, False)])
def test_a_target_may_be_an_upper_bound(p99_ms: float, is_met: bool) -> None:
    verdict = verdict_on("p99 / p50", results_of({OURS: [10]}, MANY, p99_ms))
    assert verdict.is_met(p99_ms) is is_met


def test_what_was_not_measured_is_not_judged() -> None:
    assert list(judge(results_of({REFERENCE: [10]}))) == []


def test_every_workload_is_measured_on_ours_with_and_without_row_level_security() -> None:
    ours = [side for side in SIDES if side[0] in {OURS, CONFINED}]
    assert len(ours) == 3
    assert all(workload.is_for(side) for workload in WORKLOADS if OURS in workload.programs for side in ours)


@pytest.mark.parametrize("seconds", [0.2, 1])
def test_requests_that_fail_are_counted(nothing: Running, seconds: float) -> None:
    assert run_load(nothing, Request("GET", "/missing"), 2, seconds).failed > 0


def test_who_answers_late_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.load.LAST_SECONDS", 5)
    port = free_port()
    with run_process([sys.executable, "-c", SLOW, str(port)], tmp_path / "log") as process:
        server = wait_until_open(Running(OURS, f"http://127.0.0.1:{port}", process.pid))
        load = run_load(server, Request("GET", "/slow"), 1, 0.05)
    assert (load.failed, load.per_second > 0) == (0, True)


def test_a_wrong_answer_is_never_measured(nothing: Running) -> None:
    with httpx.Client(timeout=60) as client, pytest.raises(WrongAnswerError, match="404"):
        WORKLOADS[0].prepare(World(nothing, {QUIET: "none"}, "none"), client)


@pytest.mark.parametrize(("failures", "status"), [([], 0), (["one request failed"], 1)])
def test_a_run_with_failures_does_not_end_well(tmp_path: Path, failures: list[str], status: int) -> None:
    assert tell("told", failures, tmp_path / "told.md") == status
    assert (tmp_path / "told.md").read_text() == "told"


@pytest.mark.parametrize(("unknown", "status"), [(["help"], 0), (["get-kez"], 2)])
def test_an_unknown_part_is_told_the_known_ones(unknown: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain_parts(unknown) == status
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= {workload.name for workload in WORKLOADS}
