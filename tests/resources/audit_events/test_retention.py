"""For how long events are kept: set for the service and by each organization, never below the minimum, pruned by a job that tells so."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.audit.chain import ChainKeys
from app.audit.denials import DeniedAttempts
from app.audit.retention import RetentionRules
from app.authz.builtin import BuiltinPolicyEngine
from app.core.clock import now
from app.models import AuditRetention
from app.resources.audit_events import retention
from app.resources.audit_events.retention import prune_expired
from app.unit_of_work import WorkContext
from tests.conftest import Caller, Service, make_settings, open_service
from tests.resources.audit_events.test_verify import sealed
from tests.support.answers import events_of, pointers_of, read_problem, run_sql
from tests.support.chains import KEYS, Chain, open_chain
from tests.support.database import behind
from tests.support.jobs import stop_jobs

RETENTIONS = cast("Table", AuditRetention.__table__)

pytestmark = pytest.mark.anyio


def days_ago(days: float) -> datetime:
    return now() - timedelta(days=days)


async def organization_with_old_events(service: Service, caller: Caller) -> str:
    """Events that are 400, 40 and 4 days old, and those of making it; all sealed, and pruned by nobody but the test."""
    await stop_jobs("audit retention")
    organization = await caller.new_organization()
    chain = Chain(service.runtime.context.database)
    chain.organization_id = type(chain.organization_id)(organization["id"])
    for days in (400, 40, 4):
        await chain.add(3, occurred_at=days_ago(days), actor_id=f"{days}-days")
    await chain.seal()
    await sealed(caller, organization["id"])  # those that the service's own job was about to seal, too
    return str(organization["id"])


async def left(caller: Caller, organization_id: str) -> list[str]:
    events = await events_of(caller, organization_id=organization_id)
    return [event["actor"]["id"] if event["action"] == "PROJECT_UPDATED" else event["action"] for event in events]


async def expire(service: Service, rules: RetentionRules | None = None, broken: set[UUID] | None = None) -> int:
    return await prune_expired(service.runtime.context, KEYS, rules or RetentionRules(), set() if broken is None else broken)


async def put(service: Service, retention: dict[str, Any]) -> None:
    """Write what an organization has chosen behind the service's back, in the place of what it did choose."""
    async with behind(service.runtime.context.database) as connection:
        await connection.execute(delete(RETENTIONS).where(RETENTIONS.c.organization_id == retention["organization_id"]))
        await connection.execute(insert(RETENTIONS), retention)


MADE = ["ORGANIZATION_CREATED", "MEMBERSHIP_GRANTED"]


async def test_events_are_kept_for_ever_unless_something_else_is_set(service: Service, alice: Caller) -> None:
    organization = await organization_with_old_events(service, alice)
    assert await expire(service) == 0
    assert await expire(service, RetentionRules(default_days=401)) == 0
    assert len(await left(alice, organization)) == 11
    assert await expire(service, RetentionRules(default_days=30)) == 6
    assert await expire(service, RetentionRules(default_days=30)) == 0
    assert await left(alice, organization) == ["4-days"] * 3 + MADE + ["AUDIT_PRUNED"]
    (told,) = await events_of(alice, organization_id=organization, action="AUDIT_PRUNED")
    assert (told["actor"], told["auth_method"]) == ({"type": "SERVICE", "id": "saasbase"}, "system")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=30)
    assert told["details"] == {"pruned": 6, "chosen": {"occurred_before": midnight.isoformat()}}
    assert (await sealed(alice, organization))["ok"]


async def test_an_organization_chooses_for_itself(service: Service, alice: Caller) -> None:
    chooses, does_not = [await organization_with_old_events(service, alice) for _ in range(2)]
    path = f"/organizations/{chooses}/audit-retention"
    assert (await alice.get(path)).json() == {"retention_days": None, "effective_days": None}
    assert (await alice.patch(path, {"retention_days": 100})).json() == {"retention_days": 100, "effective_days": 100}
    for _ in range(2):
        assert (await alice.patch(path, {"retention_days": 10})).json() == {"retention_days": 10, "effective_days": 10}
    assert (await alice.get(path)).json() == {"retention_days": 10, "effective_days": 10}
    changes = await events_of(alice, organization_id=chooses, action="AUDIT_RETENTION_CHANGED")
    assert [change["details"] for change in changes] == [{"before": None, "after": 100}, {"before": 100, "after": 10}]
    assert await expire(service, RetentionRules(default_days=399)) == 6 + 3
    assert (await left(alice, chooses))[:3] == ["4-days"] * 3
    assert (await left(alice, does_not))[:3] == ["40-days"] * 3
    await alice.patch(path, {"retention_days": None})
    assert await expire(service) == 0
    await alice.patch(path, {"retention_days": 1})
    await alice.delete(f"/organizations/{chooses}")
    assert await expire(service) == 3, "what its owners chose holds when it is deleted"


async def test_no_choice_and_no_prune_goes_below_the_minimum(database_url: str, tmp_path: Path) -> None:
    audit = {"min_retention": "30d", "retention": "P500D"}  # the job of the service itself finds nothing
    async with open_service(make_settings(database_url, tmp_path, audit=audit)) as service:
        alice = service.as_("user:alice")
        organization = await organization_with_old_events(service, alice)
        path = f"/organizations/{organization}/audit-retention"
        assert (await alice.get(path)).json() == {"retention_days": None, "effective_days": 500}
        assert pointers_of(await alice.patch(path, {"retention_days": 29}, 422)) == ["/retention_days"]
        assert (await alice.patch(path, {"retention_days": 30})).json()["effective_days"] == 30
        asked: dict[str, Any] = {"organization_id": organization}
        for moment in (days_ago(29.9), days_ago(0), days_ago(-1)):
            refused = await alice.delete("/audit-events", 422, params={**asked, "occurred_to": moment.isoformat()})
            assert pointers_of(refused) == ["query.occurred_to"]
        assert (await alice.delete("/audit-events", 200, params={**asked, "occurred_to": days_ago(50).isoformat()})).json() == {"pruned": 3}
        assert (await alice.delete("/audit-events", 200, params=asked)).json() == {"pruned": 3}, "all that is old enough"
        told = (await events_of(alice, organization_id=organization, action="AUDIT_PRUNED"))[-1]
        assert abs(datetime.fromisoformat(told["details"]["chosen"]["occurred_to"]) - days_ago(30)) < timedelta(minutes=1)
        assert (await left(alice, organization))[:3] == ["4-days"] * 3
        assert await expire(service, RetentionRules(minimum_days=5)) == 0
        raised = RetentionRules(minimum_days=60)
        assert await expire(service, raised) == 0, "a minimum that was raised later counts"
        assert await expire(service, RetentionRules(minimum_days=5)) == 0
        retention = KEYS.sign(AuditRetention, {"organization_id": UUID(organization), "retention_days": 1})
        await put(service, retention)
        assert await expire(service, RetentionRules(minimum_days=5)) == 0
        assert await expire(service, RetentionRules(minimum_days=2)) == 3


def forgeries(organization_id: UUID, other_id: UUID) -> dict[str, dict[str, Any]]:
    """Choices of 10 days that the owners of an organization did not make."""
    values = {"organization_id": organization_id, "retention_days": 10}
    signed = KEYS.sign(AuditRetention, {**values, "retention_days": 9000})
    return {
        "from before they were signed": {**values, "key_id": "", "mac": ""},
        "guessed": {**ChainKeys("guessed").sign(AuditRetention, values), "key_id": KEYS.current_id},
        "edited": {**signed, **values},
        "another organization's": {**KEYS.sign(AuditRetention, {**values, "organization_id": other_id}), **values},
    }


@pytest.mark.parametrize("name", forgeries(UUID(int=1), UUID(int=2)))
async def test_a_choice_that_the_service_did_not_sign_prunes_nothing_and_is_logged_once(
    name: str, service: Service, alice: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    organization, other = [await organization_with_old_events(service, alice) for _ in range(2)]
    path = f"/organizations/{organization}/audit-retention"
    await alice.patch(f"/organizations/{other}/audit-retention", {"retention_days": 10})
    await alice.patch(path, {"retention_days": 9000})
    await put(service, forgeries(UUID(organization), UUID(other))[name])
    before, broken = await left(alice, organization), set[UUID]()
    assert await expire(service, RetentionRules(default_days=5), broken) == 6, "of the other organization"
    assert await expire(service, RetentionRules(default_days=5), broken) == 0
    assert (await left(alice, organization), broken) == (before, {UUID(organization)})
    assert caplog.text.count(f"organization {organization}: what it has chosen as the retention of its events was not set by") == 1
    assert (await alice.get(path)).json() == {"retention_days": None, "effective_days": None}
    await alice.patch(path, {"retention_days": None})
    told = (await events_of(alice, organization_id=organization, action="AUDIT_RETENTION_CHANGED"))[-1]
    assert told["details"] == {"before": 10, "after": None, "before_was_signed": False}
    assert await expire(service, RetentionRules(default_days=30), broken) == 6
    assert broken == set()


async def test_a_choice_outlives_its_key_and_none_is_made_with_one_that_is_not_in_use_any_more(database_url: str) -> None:
    async with open_chain(database_url) as chain:
        context = WorkContext(chain.database, BuiltinPolicyEngine(), DeniedAttempts())
        chosen = {"organization_id": chain.organization_id, "retention_days": 100}
        await chain.tamper(insert(RETENTIONS).values(chain.keys.sign(AuditRetention, chosen)))
        leaked, broken = await chain.rotate(), set[UUID]()
        async with behind(chain.database) as connection:
            kept = (await connection.execute(select(RETENTIONS))).mappings().one()
        await chain.tamper(update(RETENTIONS).values(leaked.sign(AuditRetention, {**chosen, "retention_days": 1})))
        assert (await prune_expired(context, chain.keys, RetentionRules(), broken), broken) == (0, {chain.organization_id})
        await chain.tamper(update(RETENTIONS).values(dict(kept)))
        assert (await prune_expired(context, chain.keys, RetentionRules(), broken), broken) == (20, set())
        await chain.seal()
        assert await chain.broken_at() is None


@pytest.mark.parametrize("days", [0, -1000, 36501])
async def test_the_database_takes_no_choice_that_nobody_could_make(days: int, service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    signed = KEYS.sign(AuditRetention, {"organization_id": UUID(organization["id"]), "retention_days": days})
    with pytest.raises(IntegrityError, match="ck_audit_retentions_in_range"):
        await put(service, signed)


@pytest.mark.parametrize("body", [{}, {"retention_days": 0}, {"retention_days": 36501}, {"retention_days": "x"}, {"retention_days": 1.5}])
async def test_a_choice_that_is_none_is_refused(body: dict[str, Any], alice: Caller) -> None:
    organization = await alice.new_organization()
    assert pointers_of(await alice.patch(f"/organizations/{organization['id']}/audit-retention", body, 422)) == ["/retention_days"]


async def test_only_owners_choose(service: Service, alice: Caller) -> None:
    organization = (await alice.new_organization())["id"]
    await alice.grant("ORGANIZATION", organization, "user:bob", "ORG_ADMIN")
    path = f"/organizations/{organization}/audit-retention"
    for caller, status in ((service.as_("user:bob"), 403), (service.as_("user:mallory"), 404)):
        read_problem(await caller.get(path, status), status)
        read_problem(await caller.patch(path, {"retention_days": 1}, status), status)
    assert await run_sql(service, "SELECT * FROM audit_retentions") == []


async def test_a_long_past_goes_in_batches_each_recorded(service: Service, alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 4)
    organization = await organization_with_old_events(service, alice)
    at_once = await asyncio.gather(*(expire(service, RetentionRules(default_days=2)) for _ in range(3)))
    assert sum(at_once) == 9
    events = await events_of(alice, organization_id=organization, action="AUDIT_PRUNED")
    assert sorted(event["details"]["pruned"] for event in events) == [1, 4, 4]
    assert (await sealed(alice, organization))["ok"]


@pytest.mark.parametrize(
    "change", ["occurred_at = '2001-01-01 00:00:00'", "action = 'PROJECT_UPDATED', occurred_at = '2001-01-01 00:00:00'"]
)
async def test_what_was_changed_stays_and_is_logged_once(
    change: str, service: Service, alice: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    organization, other = [await organization_with_old_events(service, alice) for _ in range(2)]
    assert await expire(service, RetentionRules(default_days=399)) == 6
    assert (await sealed(alice, organization))["ok"]
    of_it = f"organization_id IN ('{organization}', '{UUID(organization).hex}')"
    await run_sql(service, f"UPDATE audit_events SET {change} WHERE {of_it} AND action IN ('AUDIT_PRUNED', 'MEMBERSHIP_GRANTED')")
    before, broken = await left(alice, organization), set[UUID]()
    for _ in range(2):
        assert await expire(service, RetentionRules(default_days=399), broken) == 0
    assert await left(alice, organization) == before
    assert caplog.text.count(f"organization {organization}: events past their retention stay") == 1
    assert await expire(service, RetentionRules(default_days=30), broken) == 3, "those of the other organization"
    assert (await sealed(alice, other))["ok"]
    assert not (await sealed(alice, organization))["ok"]


@pytest.fixture
async def tidy(database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with open_service(make_settings(database_url, tmp_path, audit={"retention": "P30D"})) as running:
        yield running


async def test_a_job_prunes_at_start_and_later(database_url: str, tmp_path: Path, tidy: Service) -> None:
    alice = tidy.as_("user:alice")
    organization = await organization_with_old_events(tidy, alice)
    async with open_service(make_settings(database_url, tmp_path, audit={"retention": "P30D"})):
        deadline = time.monotonic() + 60
        while "AUDIT_PRUNED" not in (found := await left(alice, organization)):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)
    assert (await left(alice, organization))[:4] == ["4-days"] * 3 + MADE[:1]
