"""/metrics about the service's own work: how far it is behind, what is broken, and which job failed."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import event, update

from app import jobs
from app.audit.sealer import Sealer
from app.core.clock import now
from app.settings import Settings
from tests.conftest import Caller, Service, make_settings, open_service
from tests.openfga.conftest import openfga_settings
from tests.openfga.copy import outbox_of, send_all, stop_sender
from tests.support.chains import HEADS, KEYS, Chain
from tests.support.database import open_database
from tests.support.metrics import Samples, growth, read_samples
from tests.support.openfga import OpenFGAServer
from tests.support.server import run_server

pytestmark = pytest.mark.anyio

SEAL_LAG = "saasbase_audit_seal_lag_seconds"
BROKEN = "saasbase_audit_chains_broken"
OUTBOX_LAG = "saasbase_authorization_outbox_lag_seconds"
FAILURES = "saasbase_job_failures_total"
RUNS = "saasbase_job_runs_total"
LAST = "saasbase_job_last_success_timestamp_seconds"
REMOVED = "saasbase_sweeper_removed_contents_total"
EXAMINED = "saasbase_sweeper_examined_contents_total"


@pytest.fixture
def _measured_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LAG_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(jobs, "SEAL_INTERVAL_SECONDS", 0.1)


async def metrics_until(service: Service, is_so: Callable[[Samples], bool]) -> Samples:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if is_so(samples := read_samples(await service.client.get("/metrics"))):
            return samples
        await asyncio.sleep(0.1)
    raise AssertionError({name: value for name, value in samples.items() if "http_request" not in name})


async def test_the_lag_of_the_sealer_is_the_age_of_the_oldest_event_of_any_organization(database_url: str) -> None:
    async with open_database(database_url) as database:
        sealer = Sealer(database, KEYS)
        assert await sealer.lag_seconds() == 0
        for age in (50, 4000, 300):
            await Chain(database).add(3, occurred_at=now() - timedelta(seconds=age))
        assert 4000 <= await sealer.lag_seconds() < 4200
        await sealer.seal()
        assert await sealer.lag_seconds() == 0
        await Chain(database).add(1, occurred_at=now() + timedelta(seconds=60))
        assert await sealer.lag_seconds() == 0, "the clock of another machine may be ahead"


async def test_the_lag_is_found_by_index_only(database_url: str) -> None:
    async with open_database(database_url) as database:
        sent: list[tuple[str, Any]] = []
        event.listen(database.for_jobs.reader.sync_engine, "before_cursor_execute", lambda *told: sent.append((told[2], told[3])))
        await Sealer(database, KEYS).lag_seconds()
        ((text, parameters),) = sent
        async with database.for_jobs.open_read() as connection:
            if not database.is_sqlite:
                await connection.exec_driver_sql("SET enable_seqscan = off")  # an empty table would be read whole otherwise
            explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            plan = [str(row[-1]).strip() for row in await connection.exec_driver_sql(f"{explain} {text}", parameters)]
    steps = [step for step in plan if "audit_events" in step]
    assert len(steps) >= 2, plan
    assert all("ix_audit_events_unsealed" in step for step in steps), plan
    assert not any("TEMP B-TREE" in step or "Sort" in step for step in plan), plan


@pytest.mark.usefixtures("_measured_often")
async def test_a_broken_chain_shows_until_it_is_mended(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    chain = Chain(service.runtime.context.database, UUID(organization["id"]))
    name = f'{RUNS}{{name="audit_chain"}}'
    begun = read_samples(await service.client.get("/metrics"))[name]
    samples = await metrics_until(service, lambda samples: samples[name] > begun + 2 and samples[SEAL_LAG] == 0)
    assert samples[BROKEN] == 0
    (head,) = await chain.rows(HEADS)
    await chain.tamper(update(HEADS).values(mac="0" * 64))
    await alice.patch(f"/organizations/{organization['id']}", {"name": "x"})
    await metrics_until(service, lambda samples: samples[BROKEN] == 1 and samples[SEAL_LAG] > 0.5)
    await chain.tamper(update(HEADS).values(mac=head["mac"]))
    await metrics_until(service, lambda samples: samples[BROKEN] == 0 and samples[SEAL_LAG] == 0)


async def test_a_chain_that_another_process_went_on_with_is_not_broken_any_more(database_url: str) -> None:
    async with open_database(database_url) as database:
        chain, sealer = Chain(database), Sealer(database, KEYS)
        await chain.add(1)
        await sealer.seal()
        (head,) = await chain.rows(HEADS)
        await chain.tamper(update(HEADS).values(mac="0" * 64))
        await chain.add(1)
        await sealer.seal()
        assert sealer.broken == {chain.organization_id}
        await chain.tamper(update(HEADS).values(mac=head["mac"]))
        assert await chain.seal() == 1, "the other process"
        await sealer.seal()
        assert sealer.broken == set()


@pytest.mark.usefixtures("_measured_often")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_job_that_fails_is_counted_by_its_name_and_when_it_last_did_not(database_url: str, tmp_path: Path) -> None:
    settings = make_settings(database_url, tmp_path, storage={"sweep_interval_seconds": 1, "sweep_min_age_seconds": 0})
    async with open_service(settings) as service:
        name = '{name="sweeper"}'
        before = await metrics_until(service, lambda samples: f"{LAST}{name}" in samples)
        assert f"{FAILURES}{name}" in before, "before it failed"
        (settings.storage.local.base_path / "incoming" / ("f" * 32)).touch()  # at once: the sweeper may look at any moment
        await metrics_until(service, lambda samples: growth(before, samples, "sweeper_") == {REMOVED: 1, EXAMINED: 1})
        folder = settings.storage.local.base_path
        folder.rename(tmp_path / "away")
        failing = await metrics_until(service, lambda samples: samples[f"{FAILURES}{name}"] > before[f"{FAILURES}{name}"])
        assert set(growth(before, failing, FAILURES)) == {f"{FAILURES}{name}"}
        (tmp_path / "away").rename(folder)
        await metrics_until(service, lambda samples: samples[f"{LAST}{name}"] > failing[f"{LAST}{name}"] > 0)


@pytest.mark.usefixtures("_measured_often")
async def test_the_lag_of_the_outbox_is_the_age_of_the_oldest_change(
    openfga_server: OpenFGAServer, database_url: str, tmp_path: Path
) -> None:
    settings: Settings = openfga_settings(openfga_server, database_url, tmp_path)
    async with open_service(settings) as service:
        assert await outbox_of(service).lag_seconds() == 0
        await stop_sender()
        await service.as_("user:alice").new_organization()
        await metrics_until(service, lambda samples: samples[OUTBOX_LAG] > 0.5)
        await send_all(service)
        await metrics_until(service, lambda samples: samples[OUTBOX_LAG] == 0)


async def break_chain(database_url: str) -> None:
    """An organization with an old event that nobody can seal."""
    async with open_database(database_url) as database:
        chain = Chain(database)
        await chain.add(1)
        await chain.seal()
        await chain.tamper(update(HEADS).values(mac="0" * 64))
        await chain.add(1, occurred_at=now() - timedelta(seconds=1000))


def test_several_workers_measure_the_same_and_do_not_add_it_up(database_url: str, tmp_path: Path) -> None:
    asyncio.run(break_chain(database_url))
    with run_server(database_url, tmp_path, workers=2) as server:

        def ask() -> Samples:
            return read_samples(httpx.get(f"{server.url}/metrics", timeout=60))

        deadline = time.monotonic() + 90
        while not ((samples := ask())[SEAL_LAG] and samples[f'{RUNS}{{name="lags"}}'] >= 4):
            assert time.monotonic() < deadline, samples
            time.sleep(0.5)
        assert {ask()[BROKEN] for _ in range(10)} == {1}
        assert all(1000 < ask()[SEAL_LAG] < 1100 for _ in range(10))
        assert ask()[f'{LAST}{{name="audit_chain"}}'] == pytest.approx(time.time(), abs=60)
