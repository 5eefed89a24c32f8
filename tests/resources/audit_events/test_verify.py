"""Verifying over HTTP and from the command line: what is answered, to whom, and that the service seals by itself."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import pointers_of, run_sql, run_sql_at
from tests.support.cli import run_saasbase
from tests.support.database import environment_of

pytestmark = pytest.mark.anyio


async def sealed(caller: Caller, organization_id: str, **params: Any) -> Any:
    """What verifying answers once everything is sealed."""
    deadline = time.monotonic() + 60
    while True:
        found = (await caller.get("/audit-events/verify", params={"organization_id": organization_id, **params})).json()
        if not found["unsealed"]:
            return found
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_what_happened_is_sealed_by_itself_and_a_change_behind_the_services_back_is_found(service: Service, alice: Caller) -> None:
    organization = (await alice.new_organization())["id"]
    for _ in range(3):
        await alice.new_project(organization)
    found = await sealed(alice, organization)
    through = found.pop("sealed_through")
    assert found == {"ok": True, "checked": 5, "first_break": None, "unsealed": 0, "is_complete": True, "next_position": None}
    assert (through["position"], len(through["hash"])) == (5, 64)
    events = (await alice.get("/audit-events", params={"organization_id": organization})).json()["items"]
    assert {"hash", "position", "key_id"}.isdisjoint(events[0])
    known = {"known_position": 5, "known_hash": through["hash"]}
    await alice.new_project(organization)
    assert (await sealed(alice, organization, **known))["ok"]
    assert (await sealed(alice, organization, from_position=6, **known))["checked"] == 1
    await run_sql(service, "UPDATE audit_events SET actor_id = 'mallory' WHERE position = 4")
    found = await sealed(alice, organization, **known)
    assert found["first_break"] == {"position": 4, "kind": "altered", "event_id": events[3]["id"]}
    assert (found["ok"], found["checked"], found["is_complete"], found["next_position"]) == (False, 3, False, None)
    other = await sealed(alice, organization, known_position=5, known_hash="0" * 64, from_position=5)
    assert other["first_break"] == {"position": 5, "kind": "known", "event_id": None}


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({}, "query.organization_id"),
        ({"organization_id": "all"}, "query.organization_id"),
        ({"from_position": 0}, "query.from_position"),
        ({"from_position": 2**63}, "query.from_position"),
        ({"known_position": 1}, "query"),
        ({"known_hash": "0" * 64}, "query"),
        ({"known_position": 0, "known_hash": "0" * 64}, "query.known_position"),
        ({"known_position": 1, "known_hash": "0" * 63}, "query.known_hash"),
        ({"known_position": 1, "known_hash": "X" * 64}, "query.known_hash"),
        ({"to_position": 1}, "query.to_position"),
    ],
)
async def test_a_doubtful_question_is_refused(params: dict[str, Any], pointer: str, alice: Caller) -> None:
    organization = {"organization_id": (await alice.new_organization())["id"]} if params and "organization_id" not in params else {}
    assert set(pointers_of(await alice.get("/audit-events/verify", 422, params={**organization, **params}))) == {pointer}


async def test_positions_beyond_the_end_are_answered(alice: Caller) -> None:
    organization = (await alice.new_organization())["id"]
    last = 2**63 - 1
    assert (await sealed(alice, organization, from_position=last))["ok"]
    found = await sealed(alice, organization, known_position=last, known_hash="0" * 64)
    assert found["first_break"] == {"position": last, "kind": "known", "event_id": None}


async def test_the_command_verifies_every_chain_the_deleted_ones_too(
    service: Service, alice: Caller, database_url: str, owner_url: str, tmp_path: Path
) -> None:
    kept, deleted = [await alice.new_organization() for _ in range(2)]
    await alice.delete(f"/organizations/{deleted['id']}")
    await sealed(alice, kept["id"])
    while (await run_sql(service, "SELECT count(*) FROM audit_events WHERE position IS NULL"))[0][0]:
        await asyncio.sleep(0.1)
    settings = environment_of(database_url)

    def verify(*arguments: str, **more: str) -> tuple[int, list[str], str]:
        ended = run_saasbase(tmp_path, "audit", "verify", *arguments, **{**settings, **more})
        return ended.status, ended.out.splitlines(), ended.err

    status, lines, _ = await asyncio.to_thread(verify)
    assert (status, len(lines)) == (0, 2)
    for line, name, count in zip(lines, (f"{kept['slug']} {kept['id']}", f"(deleted) {deleted['id']}"), (2, 3), strict=True):
        assert re.fullmatch(re.escape(name) + rf": ok, {count} events, through position {count}, hash [0-9a-f]{{64}}, 0 unsealed", line)
    for wanted, line in ((kept["slug"], lines[0]), (kept["id"], lines[0]), (deleted["id"], lines[1])):
        assert await asyncio.to_thread(verify, "--organization", wanted) == (0, [line], "")
    assert await asyncio.to_thread(verify, "--organization", "nobody") == (
        1,
        [],
        "saasbase: there is no organization nobody, and no trail of one\n",
    )
    known = ("--organization", kept["slug"], "--known-position", "2", "--known-hash")
    assert await asyncio.to_thread(verify, *known, lines[0].split("hash ")[1][:64]) == (0, [lines[0]], "")
    assert await asyncio.to_thread(verify, *known, "0" * 64) == (
        1,
        [f"{kept['slug']} {kept['id']}: BROKEN at position 2: known"],
        "",
    )
    status, lines, _ = await asyncio.to_thread(lambda: verify(SAASBASE_AUDIT__KEY="another"))
    assert (status, [line.split(": ", 1)[1].split(",")[0] for line in lines]) == (1, ["BROKEN at position 1: key"] * 2)
    await run_sql_at(owner_url, "DELETE FROM audit_events WHERE position = 3")
    status, lines, _ = await asyncio.to_thread(verify)
    assert (status, lines[0].split(": ", 1)[1][:2]) == (1, "ok")
    assert lines[1] == f"(deleted) {deleted['id']}: BROKEN at position 3: missing"
