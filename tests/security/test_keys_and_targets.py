"""A key and what the path names are found by one statement: which tells nothing to who has not proven himself, and decides nothing else."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.authn.api_keys import PROOF
from app.authn.proxies import Credentials
from app.authn.resolver import ActorResolver
from app.authz.builtin import locating_for
from app.core.actors import Actor, ActorType, Identity
from app.core.clock import now
from app.core.keys import KeyToken, hash_secret, new_token, read_token
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from app.models import Project
from tests.conftest import Caller, Service
from tests.support import rows
from tests.support.answers import denied_events_of, run_sql
from tests.support.database import OWNER, as_role
from tests.support.keys import change_key, key_of, make_key, shows
from tests.support.record import new_call, new_execution, new_place
from tests.support.rows import Place
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

SAME = {"X-Request-ID": "same"}


@pytest.fixture
async def place(alice: Caller) -> tuple[Any, Any]:
    """An organization of alice's, and a project in it."""
    return await new_place(alice)


@pytest.fixture
async def bearer(service: Service, alice: Caller, place: tuple[Any, Any]) -> Caller:
    """A key that owns the organization."""
    return (await key_of(service, alice, "ORGANIZATION", place[0]["id"], "ORG_OWNER"))[0]


async def count(service: Service, caller: Caller, method: str, path: str, **options: Any) -> int:
    """How many statements a request takes."""
    with statements_of_requests(service.runtime.context.database) as sent:
        await caller.request(method, path, **options)
    return len(sent)


async def test_a_key_costs_no_statement_of_its_own(service: Service, alice: Caller, bearer: Caller, place: tuple[Any, Any]) -> None:
    organization, project = place
    paths = [f"/organizations/{organization['id']}", f"/projects/{project['id']}"]
    paths += [f"/documents/{(await alice.new_document(project['id']))['id']}"]
    paths += [f"/api-calls/{(await new_call(alice, project['id']))['id']}", f"/executions/{(await new_execution(alice, project))['id']}"]
    paths += [f"/api-keys/{(await make_key(alice, 'PROJECT', project['id'], 'PROJECT_VIEWER'))['api_key']['id']}"]
    for path in paths:
        assert await count(service, bearer, "GET", path, expect=200) == 1, path
        assert await count(service, bearer, "HEAD", path, expect=200) == 1, path
    for caller in (alice, bearer):
        assert await count(service, caller, "GET", f"/projects/{uuid4()}", expect=404) == 1
    for path in paths[:3]:
        name = {"display_name": "new"} if "organizations" in path else {"name": "new"}
        costs = {caller: await count(service, who, "PATCH", path, json=name) for caller, who in {"alice": alice, "key": bearer}.items()}
        assert costs["key"] == costs["alice"], path
    group = f"/organizations/{organization['id']}/groups/devs"
    await alice.post(group.removesuffix("/devs"), {"group_id": "devs"})
    assert await count(service, bearer, "GET", group, expect=200) == await count(service, alice, "GET", group, expect=200)
    gone = [await alice.new_document(project["id"]) for _ in range(2)]
    costs = {
        caller: await count(service, who, "DELETE", f"/documents/{document['id']}", expect=204)
        for caller, who, document in (("alice", alice, gone[0]), ("key", bearer, gone[1]))
    }
    assert costs["key"] == costs["alice"]


async def test_who_proves_nothing_learns_nothing_of_what_is_there(service: Service, alice: Caller, place: tuple[Any, Any]) -> None:
    made = [await make_key(alice, "ORGANIZATION", place[0]["id"], "ORG_OWNER") for _ in range(3)]
    foreign = await make_key(alice, "ORGANIZATION", place[0]["id"], "ORG_OWNER", allowed_cidrs=["10.0.0.0/8"])
    await alice.post(f"/api-keys/{made[0]['api_key']['id']}/revoke", expect=200)
    await change_key(service, made[1]["api_key"]["id"], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    guesses = [KeyToken(prefix, new_token().secret).written for prefix in (made[2]["api_key"]["prefix"], new_token().prefix)]
    answers = [
        await shows(service, token).get(f"/projects/{project}", 401, headers=SAME)
        for token in (made[0]["token"], made[1]["token"], foreign["token"], *guesses)
        for project in (place[1]["id"], uuid4())
    ]
    assert len({answer.content.replace(str(answer.request.url.path).encode(), b"") for answer in answers}) == 1
    assert all(answer.headers == answers[0].headers for answer in answers)
    await shows(service, made[2]["token"]).get(f"/projects/{place[1]['id']}")


async def effort(database_url: str, sql: str, arguments: list[Any]) -> int:
    """What finding the project takes: on PostgreSQL the pages of its table and index, on SQLite the steps of the whole statement."""
    if database_url.startswith("sqlite"):
        steps: list[None] = []
        database = sqlite3.connect(urlsplit(database_url).path)
        database.set_progress_handler(lambda: steps.append(None), 1)
        database.execute(sql, arguments).fetchall()
        database.close()
        return len(steps)
    connection = await asyncpg.connect(as_role(database_url, OWNER), server_settings={"plan_cache_mode": "force_generic_plan"})
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *arguments)
    await connection.close()

    def pages(node: dict[str, Any]) -> int:
        own = node["Shared Hit Blocks"] + node["Shared Read Blocks"] if node.get("Relation Name") == "projects" else 0
        return own + sum(pages(below) for below in node.get("Plans", ()))

    return pages(json.loads(explained)[0]["Plan"])


async def test_a_wrong_secret_finds_out_nothing_of_the_target(
    service: Service, alice: Caller, place: tuple[Any, Any], database_url: str
) -> None:
    token = read_token((await make_key(alice, "ORGANIZATION", place[0]["id"], "ORG_OWNER"))["token"])
    assert token is not None
    dialect = service.runtime.context.database.reader.sync_engine.dialect
    efforts = {}
    for secret in (token.secret, new_token().secret):
        for project in (UUID(place[1]["id"]), uuid4()):
            shown = hash_secret(secret, token.algorithm, service.runtime.pepper)
            parameters = {"prefix": token.prefix, "shown": shown, "key": project, "at": now()}
            sent = locating_for(PROOF, Project.id, tells_unsent=False).compiled(dialect, parameters)
            arguments = [argument.of(parameters) for argument in sent.arguments]
            efforts[secret == token.secret, str(project) == place[1]["id"]] = await effort(database_url, sent.sql, arguments)
    assert efforts[True, True] > efforts[True, False] > efforts[False, False]
    assert efforts[False, True] == efforts[False, False]
    assert efforts[False, True] == 0 or database_url.startswith("sqlite")


async def test_what_is_in_another_tenant_is_hidden_and_the_attempt_is_told_there(
    service: Service, alice: Caller, bob: Caller, place: tuple[Any, Any]
) -> None:
    theirs = await bob.new_organization()
    stranger, key = await key_of(service, bob, "ORGANIZATION", theirs["id"], "ORG_OWNER")
    for method in ("GET", "DELETE"):
        hidden, absent = [
            await stranger.request(method, f"/projects/{project}", 404, headers=SAME) for project in (place[1]["id"], uuid4())
        ]
        assert hidden.json()["detail"] == absent.json()["detail"]
    denied = await denied_events_of(service, alice)
    assert {(event["actor"]["id"], event["resource"]["id"]) for event in denied} == {(key["id"], place[1]["id"])}
    assert await denied_events_of(service, bob) == []


@pytest.mark.parametrize(("expires_at", "status"), [(None, 200), (datetime(2001, 1, 1, tzinfo=UTC), 404)])
async def test_groups_count_as_for_everybody(
    service: Service, alice: Caller, place: tuple[Any, Any], expires_at: datetime | None, status: int
) -> None:
    """The service lets no key join a group; what stands in the tables counts all the same, with the proof as without it."""
    beside = await alice.new_project(place[0]["id"])
    bearer, key = await key_of(service, alice, "PROJECT", beside["id"], "PROJECT_VIEWER")
    home = Place(ResourceRef(ResourceType.ORGANIZATION, UUID(place[0]["id"])), UUID(place[0]["id"]))
    project = Place(ResourceRef(ResourceType.PROJECT, UUID(place[1]["id"])), home.ref.id, UUID(place[1]["id"]))
    outer, inner = [Actor(ActorType.GROUP, name) for name in ("outer", "inner")]
    told = rows.group(home, "outer") + rows.group(home, "inner") + rows.member(home, "inner", Actor(ActorType.API_KEY, key["id"]))
    told += rows.member(home, "outer", inner, expires_at) + rows.grant(project, outer, Role.PROJECT_EDITOR)
    await rows.write(service.runtime.context.database, told)
    assert await count(service, bearer, "GET", f"/projects/{place[1]['id']}", expect=status) == 1


async def test_whom_a_key_acts_for_is_looked_for_by_himself(service: Service, alice: Caller, place: tuple[Any, Any]) -> None:
    project = place[1]["id"]
    await alice.grant("PROJECT", project, "user:carol", "PROJECT_VIEWER")
    token = (await make_key(alice, "PROJECT", project, "PROJECT_OWNER", may_act_for_others=True))["token"]
    for_carol, for_nobody = [shows(service, token, **{"X-SaaSBase-On-Behalf-Of": f"user:{name}"}) for name in ("carol", "nobody")]
    assert await count(service, for_carol, "GET", f"/projects/{project}", expect=200) == 2
    await for_carol.patch(f"/projects/{project}", {"name": "new"}, 403)
    await for_nobody.get(f"/projects/{project}", 404)


class Translating:
    """A resolver of somebody's own, around the service's."""

    def __init__(self, inner: ActorResolver, identity: Identity | None) -> None:
        self._inner = inner
        self._identity = identity

    async def resolve(self, credentials: Credentials) -> Identity:
        if self._identity is None:
            return await self._inner.resolve(Credentials(credentials.head, credentials.peer))
        await self._inner.resolve(credentials)
        return self._identity


async def test_what_was_found_for_a_key_is_nothing_to_anybody_else(service: Service, bearer: Caller, place: tuple[Any, Any]) -> None:
    runtime, path = service.runtime, f"/projects/{place[1]['id']}"
    bob = Identity(Actor(ActorType.USER, "bob"), "session")
    for identity, status in ((bob, 404), (None, 200)):
        service.app.state.runtime = replace(runtime, resolver=Translating(runtime.resolver, identity))
        assert await count(service, bearer, "GET", path, expect=status) == 2


async def test_a_grant_that_ends_while_the_body_is_awaited_does_not_count(service: Service, bearer: Caller, place: tuple[Any, Any]) -> None:
    async def slowly(*, is_revoked: bool) -> AsyncIterator[bytes]:
        yield b'{"name":'
        if is_revoked:
            await run_sql(service, "DELETE FROM memberships WHERE actor_type = 'API_KEY'")
        await asyncio.sleep(1.1)
        yield b'"new"}'

    for is_revoked, status in ((False, 200), (True, 404)):
        options: dict[str, Any] = {"content": slowly(is_revoked=is_revoked), "headers": {"Content-Type": "application/json"}}
        await bearer.request("PATCH", f"/projects/{place[1]['id']}", status, **options)


async def test_an_id_is_read_as_ever(service: Service, alice: Caller, bearer: Caller, place: tuple[Any, Any]) -> None:
    written = UUID(place[1]["id"])
    spellings = [str(written).upper(), written.hex, written.urn, f"{{{written}}}", written.hex[:4] + "-" + written.hex[4:]]
    for spelling in (*spellings, "nonsense", "%00", "--", "0" * 31 + "٣", "+" + written.hex[1:], written.hex + "0"):
        answers = [await caller.get(f"/projects/{spelling}", None, headers=SAME) for caller in (alice, bearer)]
        assert answers[0].status_code == answers[1].status_code, spelling
        assert answers[0].content == answers[1].content, spelling
    assert await count(service, bearer, "GET", "/projects/nonsense", expect=422) == 1
