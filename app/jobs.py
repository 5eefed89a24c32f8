"""Work of the service itself, beside the requests."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from app.audit.chain import ChainKeys
from app.audit.denials import Key
from app.audit.retention import RetentionRules
from app.audit.sealer import Sealer
from app.authn.api_keys import KeyUses
from app.authz.outbox import Outbox
from app.blobs.mark import ForeignStoreError, claim
from app.blobs.store import BlobStore, BlobStoreError
from app.blobs.sweeper import sweep
from app.limits.buckets import Limiter
from app.observability.metrics import CHAINS_BROKEN, CONNECTIONS_IN_USE, CONNECTIONS_LIMIT, OUTBOX_LAG, SEAL_LAG, count_job, expect_job
from app.resources.audit_events.retention import prune_expired
from app.resources.executions.deadlines import end_overdue
from app.unit_of_work import WorkContext, open_system_work

_log = logging.getLogger(__name__)

DENIAL_INTERVAL_SECONDS: Final = 1.0
KEY_USE_INTERVAL_SECONDS: Final = 2.0
OUTBOX_INTERVAL_SECONDS: Final = 1.0
DEADLINE_INTERVAL_SECONDS: Final = 1.0
SEAL_INTERVAL_SECONDS: Final = 1.0
CHECKPOINT_INTERVAL_SECONDS: Final = 60.0
RETENTION_INTERVAL_SECONDS: Final = 3600.0
MEASURE_INTERVAL_SECONDS: Final = 1.0
LAG_INTERVAL_SECONDS: Final = 5.0
BUCKET_INTERVAL_SECONDS: Final = 60.0
LAST_WRITES_SECONDS: Final = 5.0
CLAIM_SECONDS: Final = 5.0

_OUTBOX: Final = "authorization outbox"


@dataclass(frozen=True, slots=True)
class JobPlan:
    """How often, and how old."""

    sweep_min_age: timedelta
    sweep_interval_seconds: int
    retention: RetentionRules
    limiter: Limiter | None = None


@asynccontextmanager
async def run_jobs(context: WorkContext, store: BlobStore, key_uses: KeyUses, chain_keys: ChainKeys, plan: JobPlan) -> AsyncIterator[None]:
    """Run the jobs while the block lasts; what is collected in memory is written before it ends, if that can be done in a few seconds."""

    async def write_once() -> None:
        await write_denials(context)

    async def write_uses() -> None:
        await key_uses.write(context.database)

    async def end_overdue_executions() -> None:
        await end_overdue(context)

    async def measure_once() -> None:
        in_use, limit = context.database.count_connections()
        CONNECTIONS_IN_USE.set(in_use)
        CONNECTIONS_LIMIT.set(limit)

    async def prune_events() -> None:
        await prune_expired(context, chain_keys, plan.retention, broken)

    await _claim(context, store)
    sweep_once = partial(_sweep, context, store, plan.sweep_min_age, set())
    broken: set[UUID] = set()
    sealer = Sealer(context.database, chain_keys)
    measure_lags = partial(_measure_lags, sealer, broken, context.outbox)
    tasks = [
        asyncio.create_task(_repeat(end_overdue_executions, DEADLINE_INTERVAL_SECONDS), name="executions past their deadline"),
        asyncio.create_task(_repeat(write_once, DENIAL_INTERVAL_SECONDS), name="denied attempts"),
        asyncio.create_task(_repeat(write_uses, KEY_USE_INTERVAL_SECONDS), name="last use of keys"),
        asyncio.create_task(_repeat(sweep_once, plan.sweep_interval_seconds), name="sweeper"),
        asyncio.create_task(_repeat(sealer.seal, SEAL_INTERVAL_SECONDS), name="audit chain"),
        asyncio.create_task(_repeat(sealer.write_checkpoints, CHECKPOINT_INTERVAL_SECONDS), name="audit checkpoints"),
        asyncio.create_task(_repeat(prune_events, RETENTION_INTERVAL_SECONDS), name="audit retention"),
        asyncio.create_task(_repeat(measure_once, MEASURE_INTERVAL_SECONDS), name="measurements"),
        asyncio.create_task(_repeat(measure_lags, LAG_INTERVAL_SECONDS), name="lags"),
    ]
    if context.outbox is not None:
        tasks.append(asyncio.create_task(_send(context.outbox), name=_OUTBOX))
    if plan.limiter is not None:
        tasks.append(asyncio.create_task(_repeat(plan.limiter.forget, BUCKET_INTERVAL_SECONDS), name="buckets of callers"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _write_the_last(write_uses, lambda: write_denials(context, all_of_them=True))


async def _claim(context: WorkContext, store: BlobStore) -> None:
    """Before the first upload, while the store of a new installation is empty. What cannot be done is left to the sweeper, which tells."""
    with suppress(ForeignStoreError, BlobStoreError, TimeoutError):
        async with asyncio.timeout(CLAIM_SECONDS):
            await claim(context.database, store)


async def _sweep(context: WorkContext, store: BlobStore, min_age: timedelta, told: set[str]) -> None:
    try:
        await sweep(context.database, store, min_age)
    except ForeignStoreError as error:  # it stays so until somebody does something: each run fails, the first says why
        if str(error) not in told:
            _log.error("%s", error)
            told.add(str(error))
        raise


async def _write_the_last(write_uses: Callable[[], Awaitable[Any]], write_all_denials: Callable[[], Awaitable[Any]]) -> None:
    try:
        async with asyncio.timeout(LAST_WRITES_SECONDS):
            await _once(write_uses, "last use of keys")
            await _once(write_all_denials, "denied attempts")
    except TimeoutError:
        _log.warning("the database did not answer at the end: the last uses of keys and denied attempts may not have been written")


async def _measure_lags(sealer: Sealer, broken: set[UUID], outbox: Outbox | None) -> None:
    CHAINS_BROKEN.set(len(sealer.broken | broken))
    SEAL_LAG.set(await sealer.lag_seconds())
    if outbox is not None:
        OUTBOX_LAG.set(await outbox.lag_seconds())


async def _repeat(job: Callable[[], Awaitable[Any]], pause_seconds: float) -> None:
    name = asyncio.current_task().get_name()  # type: ignore[union-attr] # runs as a task
    expect_job(name)
    while True:
        await _once(job, name)
        if not pause_seconds:
            return
        await asyncio.sleep(pause_seconds)


async def _send(outbox: Outbox) -> None:
    """At once after a commit that has written something down, and every second: another process may have ended before it sent."""
    expect_job(_OUTBOX)
    while True:
        await _once(outbox.send, _OUTBOX)
        await outbox.wait(OUTBOX_INTERVAL_SECONDS)


async def _once(job: Callable[[], Awaitable[Any]], name: str) -> None:
    try:
        await job()
    except ForeignStoreError:
        count_job(name, succeeded=False)
    except Exception:  # noqa: BLE001 - a job that fails is tried again; the service goes on
        count_job(name, succeeded=False)
        _log.exception("job failed: %s", name)
    else:
        count_job(name, succeeded=True)


async def write_denials(context: WorkContext, *, all_of_them: bool = False) -> int:
    """Write the refusals that are due; returns how many rows."""
    async with context.denials.writing:
        due = context.denials.due(all_of_them=all_of_them)
        by_tenant: dict[UUID, dict[Key, dict[str, Any]]] = {}
        for key, event in due.items():
            by_tenant.setdefault(event["organization_id"], {})[key] = event
        for organization_id, events in by_tenant.items():
            async with open_system_work(context, "denied attempts", organization_id) as work:
                work.adopt(events.values())
            context.denials.mark_written(events)  # only now: what could not be written is tried again
        return len(due)
