"""One large file, uploaded to ours and to the reference and downloaded again, beside what any server could reach at best."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.limits import DISK, NGINX, measure_limits, run_nginx
from benchmarks.report import spread, table
from benchmarks.results import Spread
from benchmarks.servers import OURS, REFERENCE, run_ours, run_reference
from benchmarks.targets import Verdict
from benchmarks.transfer import MIB, Source, Transfer, measure
from tests.support.s3 import run_s3

UPLOAD, DOWNLOAD = "upload", "download"
# MiB/s: what the best of the ways that were tried took of an upload when nothing was synced.
BEST_UPLOAD: Final = 870
GROWTH_MIB, GROWTH_S3_MIB = 16, 64


@dataclass(slots=True)
class Files:
    """What was measured, in the order of the runs."""

    size_mib: int
    place: str
    transfers: dict[tuple[str, str], list[Transfer]] = field(default_factory=lambda: defaultdict(list))
    limits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    idle_mib: dict[str, float] = field(default_factory=dict)

    def rates(self, program: str, kind: str) -> list[float]:
        """MiB/s of each run."""
        return [transfer.mib_per_second for transfer in self.transfers[program, kind]]

    def growth(self, program: str, kind: str) -> float:
        """The highest peak of all runs over the idle memory."""
        return max(transfer.growth_mib for transfer in self.transfers[program, kind])


def measure_files(folder: Path, size_mib: int, repeat: int, *, in_s3: bool) -> Files:
    """Upload and download on both servers and the limits, in turns."""
    source, buffer = Source(size_mib * MIB), bytearray(MIB)
    done = Files(size_mib, "S3" if in_s3 else "disk")
    with (
        tempfile.TemporaryDirectory(prefix="files-", dir=folder) as name,
        _new_bucket(in_s3=in_s3) as settings,
        run_nginx(Path(name)) as nginx,
        run_ours(Path(name) / OURS, **settings) as ours,
        run_reference(Path(name) / REFERENCE, **settings) as reference,
    ):
        servers = [(server, server.new_project()[1]) for server in (ours, reference)]
        for server, project in servers:
            measure(server, project, Source(4096), 0, buffer)  # threads and connections exist from here on
            done.idle_mib[server.name] = server.rss_mib()
        for _ in range(repeat):
            for limit, rate in measure_limits(Path(name), nginx, source, buffer).items():
                done.limits[limit].append(rate)
            for server, project in servers:
                for kind, transfer in measure(server, project, source, done.idle_mib[server.name], buffer).items():
                    done.transfers[server.name, kind].append(transfer)
    return done


@contextmanager
def _new_bucket(*, in_s3: bool) -> Iterator[dict[str, str]]:
    """The settings of both servers for S3, whose names are the same; none for the disk."""
    if not in_s3:
        yield {}
        return
    with run_s3("rclone") as server:
        settings = server.new_bucket().environment
        settings.pop("SAASBASE_STORAGE__S3__PART_BYTES")  # the default of a service, not of the tests
        yield settings | {"SAASBASE_STORAGE__S3__REGION": "us-east-1"}


def judge_files(done: Files) -> Iterator[Verdict]:
    """The targets of one large file."""
    for kind in (UPLOAD, DOWNLOAD):
        title = f"{kind} of one file of {done.size_mib} MiB"
        ours = done.rates(OURS, kind)
        if done.place == "disk":
            yield Verdict(title, done.place, "times the reference", 3, is_upper=False, value=_ratio(ours, done.rates(REFERENCE, kind)))
            if kind == UPLOAD:
                best = [min(BEST_UPLOAD, disk) for disk in done.limits[DISK]]
                measure_ = f"part of the slower of disk and {BEST_UPLOAD} MiB/s"
                yield Verdict(title, done.place, measure_, 0.80, is_upper=False, value=_ratio(ours, best))
            elif NGINX in done.limits:
                yield Verdict(title, done.place, f"part of {NGINX}", 0.80, is_upper=False, value=_ratio(ours, done.limits[NGINX]))
        bound = GROWTH_MIB if done.place == "disk" else GROWTH_S3_MIB
        yield Verdict(title, done.place, "highest peak over idle, MiB", bound, is_upper=True, value=done.growth(OURS, kind))


def render_files(done: Files) -> Iterator[str]:
    """Rates, costs and limits."""
    yield f"## One file of {done.size_mib} MiB, {done.place}"
    rows = [
        (
            f"{kind}, {program}",
            spread(Spread.of(done.rates(program, kind))),
            spread(Spread.of([transfer.cpu_seconds for transfer in done.transfers[program, kind]])),
            f"{done.idle_mib[program]:.0f}",
            f"{done.growth(program, kind):+.1f}",
        )
        for kind in (UPLOAD, DOWNLOAD)
        for program in (OURS, REFERENCE)
    ]
    rows += [(f"limit: {limit}", spread(Spread.of(rates)), "", "", "") for limit, rates in done.limits.items()]
    yield from table(("", "MiB/s", "server CPU s", "idle RSS MiB", "highest peak over idle MiB"), rows)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return Spread.of([mine / its for mine, its in zip(ours, theirs, strict=True)]).median
