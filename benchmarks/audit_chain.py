"""The hash chain of the audit trail: events sealed per second, verified per second, and pruned, on both databases."""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

from app.audit.sealer import Sealer
from app.db.migrations import migrate
from app.models import AuditEvent
from benchmarks.servers import new_postgres_database
from tests.support.chains import Chain
from tests.support.database import OWNER, as_role, make_owner, open_database
from tests.support.postgres import run_postgres

SEAL, SEAL_AT_ONCE, VERIFY, PRUNE, PRUNE_THIRD = (
    "seal",
    "seal, four chains by four sealers at once",
    "verify",
    "prune everything",
    "prune each third",
)


async def timed(what: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await what()
    return time.perf_counter() - begun


async def verify_all(chain: Chain) -> None:
    position: int | None = 1
    while position is not None:
        found = await chain.verify(position)
        assert found.ok
        position = found.next_position


async def measure(url: str, count: int) -> dict[str, float]:
    """Events per second of each kind of work, on a database of its own."""
    async with open_database(url) as database:
        await migrate(database)
        chain, others = Chain(database), [Chain(database) for _ in range(4)]
        for one in (chain, *others):
            for _ in range(count // 5000):
                await one.add(5000)
            if one is chain:
                found = {SEAL: count / await timed(chain.seal)}
        sealers = [Sealer(database, chain.keys) for _ in others]

        async def seal_at_once() -> None:
            await asyncio.gather(*(sealer.seal() for sealer in sealers))

        found[SEAL_AT_ONCE] = len(others) * count / await timed(seal_at_once)
        found[VERIFY] = count / await timed(lambda: verify_all(chain))
        found[PRUNE_THIRD] = count / 3 / await timed(lambda: chain.prune(AuditEvent.position % 3 == 0))
        found[PRUNE] = count * 2 / 3 / await timed(chain.prune)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="length of a chain")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    results: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="saasbase-bench-") as folder, run_postgres() as postgres:
        asyncio.run(make_owner(postgres))
        for repeat in range(given.repeat):
            url = as_role(new_postgres_database(postgres, owner=OWNER), OWNER)
            urls = {"SQLite": f"sqlite:///{Path(folder) / str(repeat)}.db", "PostgreSQL": url}
            for name, url in urls.items():
                for work, rate in asyncio.run(measure(url, given.events)).items():
                    results[work, name].append(rate)
    print(f"Events per second, medians (lowest to highest) of {given.repeat} runs over chains of {given.events:,}.\n")
    print("| | SQLite | PostgreSQL |\n|---|---|---|")
    for work in (SEAL, SEAL_AT_ONCE, VERIFY, PRUNE, PRUNE_THIRD):
        cells = [results[work, name] for name in ("SQLite", "PostgreSQL")]
        told = [f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})" for rates in cells]
        print(f"| {work} | {' | '.join(told)} |")


if __name__ == "__main__":
    main()
