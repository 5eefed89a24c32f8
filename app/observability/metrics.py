"""What operators watch, in the form Prometheus reads: the same numbers from whichever worker process is asked.

No label has values that a caller chooses, and nothing counts what exists apart from what does not: who reads the numbers learns
nothing about tenants.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"  # the library reads it when it is imported: once for a process

disable_created_metrics()  # type: ignore[no-untyped-call] # several workers have no such time that means anything

_registry: Final = CollectorRegistry()  # not the library's own: its process metrics would be those of any one worker
_METHODS: Final = {method: method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)

_request_seconds = Histogram(
    "saasbase_http_request_duration_seconds",
    "Time from the first byte of a request to the last of its answer.",
    ("method", "route", "status"),
    buckets=_SECONDS,
    registry=_registry,
)
_series: dict[tuple[str, str, int], Histogram] = {}

REQUESTS_IN_FLIGHT: Final = Gauge(
    "saasbase_http_requests_in_flight", "Requests being served now.", multiprocess_mode="livesum", registry=_registry
)
UPLOADED_BYTES: Final = Counter("saasbase_upload_bytes", "Bytes of files that came in whole.", registry=_registry)
CONNECTIONS_IN_USE: Final = Gauge(
    "saasbase_database_connections_in_use",
    "Database connections in use, up to a second ago.",
    multiprocess_mode="livesum",
    registry=_registry,
)
CONNECTIONS_LIMIT: Final = Gauge(
    "saasbase_database_connections_limit",
    "Database connections that may be in use at once.",
    multiprocess_mode="livesum",
    registry=_registry,
)

_failures = Counter(
    "saasbase_authentication_failures",
    "Credentials that proved nothing: malformed, invalid, or not looked at because the caller had failed too often (slowed).",
    ("reason",),
    registry=_registry,
)
MALFORMED: Final = _failures.labels("malformed")
INVALID: Final = _failures.labels("invalid")
SLOWED: Final = _failures.labels("slowed")

RATE_LIMITED: Final = Counter(
    "saasbase_rate_limited_requests", "Requests that were answered 429 because their caller had sent too many.", registry=_registry
)

_decisions = Counter(
    "saasbase_authorization_decisions",
    "What was decided about requests: allowed, forbidden, or not_found, which is also what is really absent.",
    ("outcome",),
    registry=_registry,
)
ALLOWED: Final = _decisions.labels("allowed")
FORBIDDEN: Final = _decisions.labels("forbidden")
NOT_FOUND: Final = _decisions.labels("not_found")

_answers = Counter(
    "saasbase_authorization_answers",
    "Answers to whether somebody may do something: allowed or denied, which is also what is absent, or not for the caller to ask.",
    ("surface", "outcome"),
    registry=_registry,
)

DECIDED_BY_SQL: Final = Counter(
    "saasbase_authorization_fallbacks", "Decisions the database took because OpenFGA did not answer.", registry=_registry
)

# What all workers measure of the one database: the newest measurement counts, and none of a worker that is no more.
OUTBOX_LAG: Final = Gauge(
    "saasbase_authorization_outbox_lag_seconds",
    "Age of the oldest change of grants that OpenFGA has not been told; 0 when there is none.",
    multiprocess_mode="livemostrecent",
    registry=_registry,
)
SEAL_LAG: Final = Gauge(
    "saasbase_audit_seal_lag_seconds",
    "Age of the oldest audit event that is not sealed; 0 when there is none.",
    multiprocess_mode="livemostrecent",
    registry=_registry,
)
CHAINS_BROKEN: Final = Gauge(
    "saasbase_audit_chains_broken",
    "Audit chains that were found broken, or a retention that was forged, where events wait to be sealed or pruned, and wait on.",
    multiprocess_mode="livemax",  # each worker finds them by itself
    registry=_registry,
)

SWEPT: Final = Counter("saasbase_sweeper_examined_contents", "Contents of documents the sweeper has looked at.", registry=_registry)
REMOVED: Final = Counter("saasbase_sweeper_removed_contents", "Contents no document names, which it has removed.", registry=_registry)

_job_runs = Counter("saasbase_job_runs", "Runs of the service's own jobs that came to their end.", ("name",), registry=_registry)
_job_failures = Counter("saasbase_job_failures", "Runs that failed; the log says why.", ("name",), registry=_registry)
_job_success = Gauge(
    "saasbase_job_last_success_timestamp_seconds",
    "When a job last came to its end, in seconds since 1970.",
    ("name",),
    multiprocess_mode="max",
    registry=_registry,
)


def count_answers(surface: str, answers: Iterable[bool | None]) -> None:
    """Count what was answered to who asked about rights: ``authz``, or ``authzen`` in the words of that standard."""
    for allowed in answers:
        _answers.labels(surface, "allowed" if allowed else "denied").inc()


def expect_job(name: str) -> None:
    """Say that there is a job of that name: its failures are told from 0 on, so that the first is seen to come."""
    for counter in (_job_runs, _job_failures):
        counter.labels(_label_of(name))


def count_job(name: str, *, succeeded: bool) -> None:
    """Count a run of a job that has ended."""
    label = _label_of(name)
    if succeeded:
        _job_runs.labels(label).inc()
        _job_success.labels(label).set_to_current_time()
    else:
        _job_failures.labels(label).inc()


def _label_of(job: str) -> str:
    return job.replace(" ", "_")


def observe_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request that has been answered. ``route`` is the template of its path; ``status`` is 0 when nothing was answered."""
    key = (_METHODS.get(method, "other"), route or "none", status // 100)
    series = _series.get(key)
    if series is None:
        series = _series[key] = _request_seconds.labels(key[0], key[1], f"{key[2]}xx" if key[2] else "none")
    series.observe(seconds)


def render() -> bytes:
    """All numbers as text (Prometheus exposition format 0.0.4). Reads a few files of each worker when there are several."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return generate_latest(_registry)
    _forget_dead_workers(Path(folder))
    shared = CollectorRegistry()
    MultiProcessCollector(shared, folder)  # type: ignore[no-untyped-call] # the library types its other modules only
    return generate_latest(shared)


@contextmanager
def shared_folder() -> Iterator[None]:
    """While the block lasts, processes that are started from this one share their numbers: in a new folder, gone at the end."""
    with TemporaryDirectory(prefix="saasbase-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        yield


def _forget_dead_workers(folder: Path) -> None:
    """What a worker has counted stays; what was going on in one that is no more does not."""
    for path in folder.glob("gauge_live*.db"):
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except OSError:  # no such process, or not one of ours
            with suppress(FileNotFoundError):  # another worker was quicker
                mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
