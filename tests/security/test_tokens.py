"""Tokens through the service: whom they make the caller, what their groups, scopes and actors give and what they do not."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.answers import denied_events_of, events_of, read_problem
from tests.support.cli import run_saasbase
from tests.support.issuers import AUDIENCE, NAME, KeyServer, key_pair, run_key_server, token
from tests.support.keys import key_of, make_key, shows
from tests.support.record import new_execution, new_place
from tests.support.server import run_server

pytestmark = pytest.mark.anyio

SAME = {"X-Request-ID": "same"}


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    with run_key_server(key_pair()) as running:
        yield running


@pytest.fixture
def settings(database_url: str, tmp_path: Path, keys: KeyServer) -> Settings:
    return believing(database_url, tmp_path, keys)


def believing(database_url: str, folder: Path, keys: KeyServer, **fields: Any) -> Settings:
    """A configuration with one issuer."""
    issuer = {"issuer": NAME, "audience": AUDIENCE, "jwks_url": keys.url, **fields}
    return make_settings(database_url, folder, jwt={"issuers": [issuer]})


@pytest.fixture
def restarted(database_url: str, tmp_path: Path, keys: KeyServer) -> Any:
    """A second service on the same database, whose issuer has these fields as well."""

    def start(**fields: Any) -> AbstractAsyncContextManager[Service]:
        return open_service(believing(database_url, tmp_path, keys, **fields))

    return start


@pytest.fixture
async def place(alice: Caller) -> tuple[Any, Any]:
    return await new_place(alice)


async def test_a_token_is_its_subject(service: Service, place: tuple[Any, Any], alice: Caller) -> None:
    organization, _ = place
    bearer = shows(service, token("alice"))
    assert (await bearer.get(f"/organizations/{organization['id']}")).json() == organization
    project = await bearer.new_project(organization["id"])
    assert project["created_by_subject"] == "user:alice"
    event = (await events_of(alice, action="PROJECT_CREATED"))[-1]
    assert (event["actor"], event["auth_method"], event["on_behalf_of"]) == ({"type": "USER", "id": "alice"}, "jwt", None)
    await shows(service, token("mallory")).get(f"/organizations/{organization['id']}", 404)
    mine = await shows(service, token("zoe")).new_organization()
    assert mine["created_by_subject"] == "user:zoe"


async def test_every_bad_credential_gets_the_answer_of_every_other(service: Service, place: tuple[Any, Any]) -> None:
    organization, _ = place
    bad = [
        token("alice", exp=1),
        token("alice", aud="others"),
        token("alice", iss="https://other.example"),
        token("alice", key=key_pair("RS256", "unknown")),
        token("")[:-2],
        "x",
        "sbk_x",
        "sbk_abcdefghij01." + "A" * 43,
        "sbk_" + token("alice"),
    ]
    answers = [await shows(service, text).get(f"/organizations/{organization['id']}", 401, headers=SAME) for text in bad]
    read_problem(answers[0], 401, "unauthenticated")
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert {answer.content for answer in answers} == {answers[0].content}
    assert all(answer.headers == answers[0].headers for answer in answers)


async def test_a_bad_token_never_falls_through_and_a_good_one_wins(service: Service, place: tuple[Any, Any]) -> None:
    organization, _ = place
    named = {"X-SaaSBase-Actor": "user:alice"}
    await shows(service, token("alice", exp=1), **named).get(f"/organizations/{organization['id']}", 401)
    await shows(service, token("mallory"), **named).get(f"/organizations/{organization['id']}", 404)
    await shows(service, token("mallory"), **{"X-SaaSBase-On-Behalf-Of": "user:alice"}).get(f"/organizations/{organization['id']}", 403)


async def test_keys_work_beside_tokens(service: Service, place: tuple[Any, Any], alice: Caller) -> None:
    organization, _ = place
    bearer, _ = await key_of(service, alice, "ORGANIZATION", organization["id"], "ORG_MEMBER")
    await bearer.get(f"/organizations/{organization['id']}")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_without_issuers_a_token_is_refused(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path)) as service:
        read_problem(await shows(service, token("alice")).get("/organizations", 401), 401, "unauthenticated")


async def test_keys_are_asked_for_once_and_new_ones_are_found(service: Service, keys: KeyServer) -> None:
    assert keys.fetches == 0
    for _ in range(5):
        await shows(service, token("alice")).get("/organizations")
    assert keys.fetches == 1
    rotated = key_pair("ES256", "rotated")
    keys.publish(key_pair(), rotated)
    await shows(service, token("alice", key=rotated)).get("/organizations")
    for number in range(20):
        await shows(service, token("alice", key=key_pair(), header={"kid": f"unknown-{number}"})).get("/organizations", 401)
    assert keys.fetches == 2


async def test_without_the_issuers_keys_the_service_is_unavailable_and_nobody_is_let_in(
    service: Service, place: tuple[Any, Any], keys: KeyServer, alice: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    organization, _ = place
    path = f"/organizations/{organization['id']}"
    keys.status = 500
    for text in (token("alice"), token("alice", exp=1)):
        unavailable = await shows(service, text).get(path, 503)
        read_problem(unavailable, 503, "issuer_unavailable")
        assert int(unavailable.headers["retry-after"]) >= 1
    await shows(service, token("alice", iss="https://other.example")).get(path, 401)
    await alice.get(path)
    await shows(service, (await make_key(alice, "ORGANIZATION", organization["id"], "ORG_MEMBER"))["token"]).get(path)
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["app.authn.jwks"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_client_of_the_issuers_is_closed_with_the_service(settings: Settings) -> None:
    async with open_service(settings) as service:
        await shows(service, token("alice")).get("/organizations")
    tokens = service.runtime.tokens
    assert tokens is not None
    assert tokens._client.is_closed


async def test_groups_of_a_token_count_in_the_organization_of_its_issuer_alone(alice: Caller, restarted: Any) -> None:
    bound, project = await new_place(alice)
    other, foreign = await new_place(alice)
    for organization in (bound, other):
        await alice.post(f"/organizations/{organization['id']}/groups", {"group_id": "devs"})
        await alice.grant("ORGANIZATION", organization["id"], "group:devs", "PROJECT_EDITOR")
    shown = await alice.new_document(project["id"])
    hidden = await alice.new_document(foreign["id"])
    async with restarted(organization_id=bound["id"]) as service:
        bearer = shows(service, token("carl", groups=["devs", "others"]))
        await bearer.get(f"/documents/{shown['id']}")
        await bearer.patch(f"/documents/{shown['id']}", {"name": "renamed"})
        await bearer.get(f"/documents/{hidden['id']}", 404)
        await bearer.post("/projects", {"organization_id": other["id"], "name": "x"}, 404)
        for path, ids in {"/documents": [shown["id"]], "/projects": [project["id"]], "/organizations": []}.items():
            page = (await bearer.get(path)).json()
            assert ([item["id"] for item in page["items"]], page["total_items"]) == (ids, len(ids))
        for without in (token("carl"), token("carl", groups=[]), token("carl", groups=["Devs"]), token("carl", roles=["devs"])):
            await shows(service, without).get(f"/documents/{shown['id']}", 404)
            assert (await shows(service, without).get("/documents")).json()["total_items"] == 0
        await shows(service, token("carl", groups="devs")).get("/documents", 401)
    async with restarted() as service:
        await shows(service, token("carl", groups=["devs"])).get(f"/documents/{shown['id']}", 404)


async def test_a_group_of_a_token_counts_within_other_groups(alice: Caller, restarted: Any) -> None:
    organization, project = await new_place(alice)
    for group in ("inner", "outer"):
        await alice.post(f"/organizations/{organization['id']}/groups", {"group_id": group})
    await alice.post(f"/organizations/{organization['id']}/groups/outer/members", {"member_type": "GROUP", "member_id": "inner"})
    await alice.grant("PROJECT", project["id"], "group:outer", "PROJECT_VIEWER")
    async with restarted(organization_id=organization["id"], groups_claim="https://acme.example/groups") as service:
        named: dict[str, Any] = {"https://acme.example/groups": ["inner"]}
        bearer = shows(service, token("carl", **named))
        await bearer.get(f"/projects/{project['id']}")
        await bearer.patch(f"/projects/{project['id']}", {"name": "x"}, 403)


async def test_an_agent_acting_for_a_person_has_what_both_have(service: Service, place: tuple[Any, Any], alice: Caller) -> None:
    organization, project = place
    await alice.grant("PROJECT", project["id"], "agent:tagger", "PROJECT_EDITOR")
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_VIEWER")
    document = await alice.new_document(project["id"])
    for_alice = shows(service, token("alice", act={"sub": "tagger"}))
    for_bob = shows(service, token("bob", act={"sub": "tagger"}))
    for_mallory = shows(service, token("mallory", act={"sub": "tagger"}))
    stranger = shows(service, token("alice", act={"sub": "stranger"}))
    await for_alice.patch(f"/documents/{document['id']}", {"name": "tagged"})
    await for_alice.delete(f"/documents/{document['id']}", 403)  # alice may, the agent may not
    await for_bob.get(f"/documents/{document['id']}")
    await for_bob.patch(f"/documents/{document['id']}", {"name": "x"}, 403)  # the agent may, bob may not
    for nobody in (for_mallory, stranger):
        await nobody.get(f"/documents/{document['id']}", 404)
        assert (await nobody.get("/documents")).json()["total_items"] == 0
    assert (await for_bob.get("/documents")).json()["total_items"] == 1
    await for_alice.get(f"/organizations/{organization['id']}", 404)
    await for_alice.post("/organizations", {"slug": "of-an-agent"}, 403)
    changed = (await events_of(alice, action="DOCUMENT_UPDATED"))[-1]
    assert (changed["actor"], changed["on_behalf_of"], changed["auth_method"]) == ({"type": "AGENT", "id": "tagger"}, "user:alice", "jwt")
    refused = await denied_events_of(service, alice, resource_id=document["id"])
    assert {(event["actor"]["id"], event["on_behalf_of"]) for event in refused} >= {("tagger", "user:alice"), ("tagger", "user:bob")}
    execution = await new_execution(for_alice, project)
    assert (execution["actor"], execution["on_behalf_of"]) == ({"type": "AGENT", "id": "tagger"}, "user:alice")


async def test_the_groups_of_a_token_are_those_of_its_subject_not_of_who_acts(alice: Caller, restarted: Any) -> None:
    organization, project = await new_place(alice)
    await alice.post(f"/organizations/{organization['id']}/groups", {"group_id": "devs"})
    await alice.grant("PROJECT", project["id"], "group:devs", "PROJECT_EDITOR")
    async with restarted(organization_id=organization["id"]) as service:
        acting = shows(service, token("carl", act={"sub": "tagger"}, groups=["devs"]))
        await acting.get(f"/projects/{project['id']}", 404)
        await alice.grant("PROJECT", project["id"], "agent:tagger", "PROJECT_VIEWER")
        await acting.get(f"/projects/{project['id']}")
        await acting.patch(f"/projects/{project['id']}", {"name": "x"}, 403)


async def test_scopes_narrow_what_a_token_may_do(alice: Caller, restarted: Any) -> None:
    organization, project = await new_place(alice)
    document = await alice.new_document(project["id"])
    async with restarted(scope_prefix="saasbase:") as service:
        reads = shows(service, token("alice", scope="openid saasbase:document:read saasbase:PROJECT_READ"))
        await reads.get(f"/documents/{document['id']}")
        assert (await reads.get("/documents")).json()["total_items"] == 1
        await reads.patch(f"/documents/{document['id']}", {"name": "x"}, 403)
        await reads.grant("PROJECT", project["id"], "user:mallory", "PROJECT_VIEWER", 403)
        read_problem(await reads.get("/organizations", 403), 403)
        for nothing in (token("alice"), token("alice", scope="openid"), token("alice", scope="document:read")):
            await shows(service, nothing).get(f"/documents/{document['id']}", 404)
            await shows(service, nothing).get("/documents", 403)
            await shows(service, nothing).post("/organizations", {"slug": "of-a-narrowed-token"}, 403)
        acting = shows(service, token("alice", act={"sub": "alice"}, scope="saasbase:document:read"))
        await acting.get(f"/documents/{document['id']}", 404)
        await alice.grant("ORGANIZATION", organization["id"], "agent:alice", "ORG_ADMIN")
        await acting.get(f"/documents/{document['id']}")
        await acting.patch(f"/documents/{document['id']}", {"name": "x"}, 403)


async def test_scopes_give_away_nothing_of_the_subject(alice: Caller, restarted: Any) -> None:
    organization, project = await new_place(alice)
    groups = f"/organizations/{organization['id']}/groups"
    await alice.post(groups, {"group_id": "devs"})
    in_group = {"member_type": "USER", "member_id": "bob"}
    await alice.post(f"{groups}/devs/members", in_group)
    held = ("ORGANIZATION", organization["id"], "ORG_MEMBER"), ("PROJECT", project["id"], "PROJECT_VIEWER")
    grants = [
        {"resource_type": kind, "resource_id": one, "actor_type": "USER", "actor_id": "bob", "role": role} for kind, one, role in held
    ]
    for grant in grants:
        await alice.post("/memberships", grant)
    async with restarted(scope_prefix="saasbase:") as service:
        for scope, status in (("saasbase:document:read", 404), ("saasbase:organization:read saasbase:project:read", 403)):
            narrow = shows(service, token("bob", scope=scope))
            await narrow.delete(f"{groups}/devs/members", status, params=in_group)
            for grant in grants:
                await narrow.delete("/memberships", status, params=grant)
        assert len((await alice.get(f"{groups}/devs/members")).json()) == 1
    async with restarted() as service:
        whole = shows(service, token("bob"))
        await whole.delete(f"{groups}/devs/members", params=in_group)
        for grant in reversed(grants):
            await whole.delete("/memberships", params=grant)


async def test_a_listed_gateway_may_act_for_others(alice: Caller, restarted: Any) -> None:
    _, project = await new_place(alice)
    await alice.grant("PROJECT", project["id"], "service:gateway", "PROJECT_EDITOR")
    async with restarted(actor_type="SERVICE", may_act_for_others=["service:gateway"]) as service:
        for header in ("X-SaaSBase-On-Behalf-Of", "X-SaaSBase-Actor"):
            acting = shows(service, token("gateway"), **{header: "user:alice"})
            await acting.patch(f"/projects/{project['id']}", {"name": header})
            event = (await events_of(alice, action="PROJECT_UPDATED"))[-1]
            assert (event["actor"], event["on_behalf_of"]) == ({"type": "SERVICE", "id": "gateway"}, "user:alice")
        await shows(service, token("other"), **{"X-SaaSBase-On-Behalf-Of": "user:alice"}).get("/projects", 403)
        twice = shows(service, token("alice", act={"sub": "gateway"}), **{"X-SaaSBase-On-Behalf-Of": "user:alice"})
        await twice.get("/projects", 403)


@pytest.fixture
async def many(database_url: str, tmp_path: Path, keys: KeyServer) -> AsyncIterator[Service]:
    """A service that believes two issuers."""
    issuers = [
        {"issuer": NAME, "audience": AUDIENCE, "jwks_url": keys.url, "alias": "corp"},
        {"issuer": "https://two.example", "audience": [AUDIENCE], "jwks_url": keys.url, "alias": "partner"},
    ]
    async with open_service(make_settings(database_url, tmp_path, jwt={"issuers": issuers})) as service:
        yield service


async def test_subjects_of_two_issuers_are_never_the_same(many: Service) -> None:
    corp, partner = shows(many, token("alice")), shows(many, token("alice", iss="https://two.example"))
    organization = await corp.new_organization()
    assert organization["created_by_subject"] == "user:corp|alice"
    await partner.get(f"/organizations/{organization['id']}", 404)
    await many.as_("user:alice").get(f"/organizations/{organization['id']}", 404)
    await corp.grant("ORGANIZATION", organization["id"], "user:partner|alice", "ORG_MEMBER")
    await partner.get(f"/organizations/{organization['id']}")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_server_is_told_of_its_issuers_by_the_environment(database_url: str, tmp_path: Path, keys: KeyServer) -> None:
    issuers = json.dumps([{"issuer": NAME, "audience": AUDIENCE, "jwks_url": keys.url}])
    with run_server(database_url, tmp_path, SAASBASE_JWT__ISSUERS=issuers, SAASBASE_LOG__LEVEL="DEBUG") as server:
        for text, status in ((token("alice"), 201), (token("alice", exp=1), 401)):
            headers = {"Authorization": f"Bearer {text}"}
            answer = httpx.post(f"{server.url}/api/organizations", json={"slug": "acme"}, headers=headers, timeout=20)
            assert answer.status_code == status, answer.text
            assert text not in server.log
            assert text.rpartition(".")[2] not in server.log
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_a_server_does_not_start_with_an_issuer_without_an_audience(tmp_path: Path) -> None:
    issuers = json.dumps([{"issuer": NAME, "jwks_url": "https://issuer.example/keys"}])
    ended = run_saasbase(tmp_path, "serve", "--port", "1", SAASBASE_JWT__ISSUERS=issuers)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "saasbase: SAASBASE_JWT__ISSUERS__0__AUDIENCE: Field required\n"
