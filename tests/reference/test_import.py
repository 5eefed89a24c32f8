"""After an import ours answers what the reference answered, and everybody may do what his roles say."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.audit.sealer import Sealer
from app.cli.importing import import_all
from app.models import UnsentTuple
from app.settings import AuthorizationEngine, Settings
from tests.conftest import Caller, Service, open_service
from tests.reference.conftest import NO_SERVER, Import, numbers
from tests.support.database import behind, open_database
from tests.support.jobs import stop_jobs
from tests.support.keys import shows
from tests.support.reference_world import HELLO, HELLO_AGAIN, World, paths_of

EVERYTHING = {
    "organizations": 2,
    "projects": 2,
    "documents": 2,
    "document_versions": 3,
    "api_calls": 1,
    "executions": 3,
    "api_keys": 4,
    "memberships": 7,
}


def everything(world: World) -> dict[str, int]:
    """Documents made by SQL have no events."""
    return {**EVERYTHING, "audit_events": world.event_count}


# A path of the server.
OURS = {"storage_uri"}


def by_id(answer: Any) -> dict[str, Any]:
    """What was answered, without the order of a list."""
    items = answer.get("items", [answer]) if isinstance(answer, dict) else answer
    return {item["id"]: item for item in items}


async def test_everything_is_answered_as_before(world: World, run_import: Import, settings: Settings) -> None:
    ended = await run_import(world)
    assert numbers(ended) == {table: (count, count, 0, 0) for table, count in everything(world).items()}
    async with open_service(settings) as service:
        alice = service.as_("user:alice")
        for name, path in paths_of(world).items():
            theirs, found = by_id(world.answers[name]), by_id((await alice.get(path)).json())
            assert found.keys() >= theirs.keys(), name
            for row_id, row in theirs.items():
                assert {field: found[row_id][field] for field in row.keys() - OURS} == {field: row[field] for field in row.keys() - OURS}
        letter = f"/documents/{world.ids['letter']}"
        assert (await alice.get(f"{letter}/content")).content == HELLO_AGAIN
        assert (await alice.get(f"{letter}/versions/v1/content")).content == HELLO
        leaf = (await alice.get(f"/executions/{world.ids['leaf']}")).json()
        assert leaf["root_execution_id"] == world.ids["run"]


async def test_keys_keep_working_and_hold_what_they_held(world: World, run_import: Import, settings: Settings) -> None:
    await run_import(world)
    async with open_service(settings) as service:
        owner, viewer = (shows(service, world.tokens[name]) for name in ("owner", "viewer"))
        await owner.get(f"/organizations/{world.ids['acme']}")
        await owner.patch(f"/organizations/{world.ids['acme']}", {"name": "Acme Inc"})
        await viewer.get(f"/projects/{world.ids['website']}")
        await viewer.patch(f"/projects/{world.ids['website']}", {"name": "x"}, 403)
        await viewer.get(f"/projects/{world.ids['twin']}", 404)
        for name in ("revoked", "expired"):
            await shows(service, world.tokens[name]).get(f"/projects/{world.ids['website']}", 401)
        await owner.post(f"/api-keys/{world.ids['viewer']}/revoke", expect=200)
        await viewer.get(f"/projects/{world.ids['website']}", 401)


async def test_roles_count_now(world: World, run_import: Import, settings: Settings) -> None:
    await run_import(world)
    async with open_service(settings) as service:
        bob, tagger, mallory = map(service.as_, ("user:bob", "agent:tagger", "user:mallory"))
        await bob.get(f"/projects/{world.ids['website']}")
        await bob.get(f"/projects/{world.ids['twin']}", 404)
        await tagger.patch(f"/documents/{world.ids['letter']}", {"metadata": {"tag": 1}})
        for caller in (mallory, service.as_(None)):
            assert (await caller.get(f"/organizations/{world.ids['acme']}", None)).status_code in {401, 404}
        await service.as_("user:alice").get(f"/organizations/{world.ids['beta']}", 404)


async def test_who_has_no_owner_is_named(world: World, run_import: Import) -> None:
    (line,) = [line for line in await run_import(world) if line.startswith("no owner")]
    assert world.ids["beta"] in line


async def test_a_repeated_call_finds_the_one_that_was_imported(world: World, run_import: Import, settings: Settings) -> None:
    await run_import(world)
    call = {"name": "charge", "operation_key": "POST /charges", "idempotency_key": "once", "correlation_id": "order-7"}
    async with open_service(settings) as service:
        calls, alice = f"/projects/{world.ids['website']}/api-calls", service.as_("user:alice")
        again = await alice.post(calls, {**call, "request_payload": {"amount": 1}}, 200)
        assert again.json()["id"] == world.ids["call"]
        await alice.post(calls, {**call, "request_payload": {"amount": 2}}, 409)


async def events_of(alice: Caller, world: World, **filters: str) -> list[Any]:
    asked = "&".join(f"{name}={value}" for name, value in filters.items())
    found: list[Any] = (await alice.get(f"/audit-events?organization_id={world.ids['acme']}&size=500&{asked}")).json()["items"]
    return found


async def test_the_trail_says_what_was_imported_and_is_sealed(world: World, run_import: Import, settings: Settings) -> None:
    await run_import(world)
    async with open_service(settings) as service:
        alice = service.as_("user:alice")
        (told,) = await events_of(alice, world, action="ORGANIZATION_IMPORTED")
        assert (told["actor"], told["auth_method"]) == ({"type": "SERVICE", "id": "saasbase"}, "system")
        events = await events_of(alice, world)
        assert {event["auth_method"] for event in events if event["id"] != told["id"]} == {"imported"}
        assert told["details"] == {
            "organizations": 1,
            **{table: count for table, count in everything(world).items() if table not in {"organizations", "audit_events"}},
            "audit_events": len(events) - 1,
        }
        await seal(service)
        whole = (await alice.get(f"/audit-events/verify?organization_id={world.ids['acme']}")).json()
        assert (whole["ok"], whole["checked"], whole["unsealed"]) == (True, len(events), 0)


async def seal(service: Service) -> None:
    await stop_jobs("audit chain")  # what it is sealing, nobody else seals
    await Sealer(service.runtime.context.database, service.runtime.chain_keys).seal()


async def test_a_second_import_changes_nothing(world: World, run_import: Import, settings: Settings) -> None:
    await run_import(world)
    async with open_service(settings) as service:
        before = await events_of(service.as_("user:alice"), world)
    blobs = sorted((settings.storage.local.base_path / "objects").rglob("*"))
    again = await run_import(world)
    assert numbers(again) == {table: (count, 0, count, 0) for table, count in everything(world).items()}
    assert sorted((settings.storage.local.base_path / "objects").rglob("*")) == blobs
    async with open_service(settings) as service:
        assert await events_of(service.as_("user:alice"), world) == before


async def test_what_was_taken_away_since_does_not_come_back(world: World, run_import: Import, settings: Settings) -> None:
    await run_import(world)
    grant = f"resource_type=PROJECT&resource_id={world.ids['website']}&actor_type=USER&actor_id=bob&role=PROJECT_VIEWER"
    async with open_service(settings) as service:
        alice = service.as_("user:alice")
        await alice.delete(f"/memberships?{grant}")
        await alice.delete(f"/documents/{world.ids['letter']}")
        await alice.post("/executions", {"organization_id": world.ids["acme"], "project_id": world.ids["website"], "operation": "new"})
    again = await run_import(world)
    left_out = [line for line in again if line.startswith("left out")]
    assert [line.split()[2] for line in left_out] == ["document_versions", "document_versions", "documents", "memberships", "memberships"]
    async with open_service(settings) as service:
        await service.as_("user:bob").get(f"/projects/{world.ids['website']}", 404)
        await service.as_("user:alice").get(f"/documents/{world.ids['letter']}", 404)
        await service.as_("user:alice").delete(f"/organizations/{world.ids['acme']}")
    await run_import(world)
    async with open_service(settings) as service:
        await service.as_("user:alice").get(f"/organizations/{world.ids['acme']}", 404)


async def test_a_dry_run_tells_the_same_and_writes_nothing(world: World, run_import: Import, settings: Settings, tmp_path: Path) -> None:
    dry = await run_import(world, is_dry_run=True)
    assert not (tmp_path / "documents").exists()
    async with open_service(settings) as service:
        await service.as_("user:alice").get(f"/organizations/{world.ids['acme']}", 404)
    real = await run_import(world)
    assert numbers(dry) == numbers(real)
    assert dry[10:-1] == real[10:-1]
    assert dry[-1] == real[-1] + "; nothing was written"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_dry_run_makes_no_database(world: World, run_import: Import, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "test.db").unlink()
    await run_import(world, is_dry_run=True)
    assert not (tmp_path / "test.db").exists()


async def test_grants_are_written_down_for_openfga(world: World, run_import: Import, settings: Settings) -> None:
    with_copy = settings.model_copy(update={"authz": settings.authz.model_copy(update={"engine": AuthorizationEngine.OPENFGA})})
    with_copy.authz.openfga.store_id = "store"
    await import_all(with_copy, world.database_url, str(world.documents), NO_SERVER, is_dry_run=False)
    async with open_database(settings.db_url.get_secret_value()) as database, behind(database) as connection:
        subjects = (await connection.execute(select(UnsentTuple.subject))).scalars().all()
    assert len(subjects) == EVERYTHING["memberships"]
