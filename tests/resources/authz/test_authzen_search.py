"""AuthZEN's searches find what /authz lists, page by page; its metadata leads to them."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Caller, Service, make_settings, open_service
from tests.resources.authz.test_authzen import ACTION, ALL, EVALUATION, RESOURCE, SUBJECT, ask, question
from tests.support.answers import read_problem

pytestmark = pytest.mark.anyio

METADATA = "/.well-known/authzen-configuration"


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.fixture
async def project(alice: Caller, org: str) -> str:
    return str((await alice.new_project(org))["id"])


async def every_page(caller: Caller, path: str, asked: dict[str, Any], limit: int) -> list[list[dict[str, str]]]:
    """The results of all pages; only the first request says the limit."""
    pages: list[list[dict[str, str]]] = []
    page: dict[str, Any] = {"limit": limit}
    for _ in range(50):
        answer = await ask(caller, path, {**asked, "page": page})
        assert next(iter(answer)) == "page"  # so that a client can show progress
        assert answer["page"]["count"] == len(answer["results"]) <= limit
        pages.append(answer["results"])
        if not answer["page"]["next_token"]:
            assert sum(map(len, pages)) == answer["page"]["total"]
            return pages
        page = {"token": answer["page"]["next_token"]}
    raise AssertionError("the pages do not end")


async def fill(alice: Caller, org: str, project: str) -> None:
    """Grants of every kind, directly and through groups."""
    for group, member in (("low", "USER:bob"), ("low", "SERVICE:billing"), ("top", "GROUP:low")):
        kind, _, name = member.partition(":")
        await alice.post(f"/organizations/{org}/groups", {"group_id": group}, None)
        await alice.post(f"/organizations/{org}/groups/{group}/members", {"member_type": kind, "member_id": name})
    await alice.grant("PROJECT", project, "group:top", "PROJECT_EDITOR")
    for subject in ("user:carol", "user:zoë", "user:" + "\N{GRINNING FACE}" * 256, "agent:tagger"):
        await alice.grant("PROJECT", project, subject, "PROJECT_VIEWER")


async def test_subjects_are_those_who_can_of_the_type(alice: Caller, org: str, project: str) -> None:
    await fill(alice, org, project)
    asked = {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": project}
    expected = [(actor["type"].lower(), actor["id"]) for actor in (await alice.get("/authz/who-can", params=asked)).json()]
    found: list[tuple[str, str]] = []
    for kind in ("agent", "api_key", "group", "service", "user"):
        search = {**question("", "read", "project", project), "subject": {"type": kind}}
        results = (await ask(alice, SUBJECT, search))["results"]
        assert results == (await ask(alice, SUBJECT, {**search, "subject": {"type": kind, "id": "alice"}}))["results"]
        assert [one for page in await every_page(alice, SUBJECT, search, 1) for one in page] == results
        for one in results:
            assert await ask(alice, EVALUATION, {**search, "subject": one}) == {"decision": True}
        found += [(one["type"], one["id"]) for one in results]
    assert found == expected
    assert {name for kind, name in found if kind == "user"} >= {"alice", "bob", "carol", "zoë"}
    loud = await ask(alice, SUBJECT, {**question("", "update", "project", project), "subject": {"type": "USER"}})
    assert loud["results"] == [{"type": "USER", "id": "alice"}, {"type": "USER", "id": "bob"}]


async def test_resources_are_those_of_list_objects(alice: Caller, bob: Caller, mallory: Caller, org: str) -> None:
    projects = sorted([(await alice.new_project(org))["id"] for _ in range(7)])
    for one in projects[:5]:
        await alice.grant("PROJECT", one, "user:bob", "PROJECT_VIEWER")
    theirs = await mallory.new_project((await mallory.new_organization())["id"])
    await mallory.grant("PROJECT", theirs["id"], "user:bob", "PROJECT_VIEWER")
    asked = {**question("user:bob", "read", "", ""), "resource": {"type": "project", "id": "ignored"}}
    for caller, expected in ((alice, projects[:5]), (bob, sorted([*projects[:5], theirs["id"]])), (mallory, [theirs["id"]])):
        body = {"actor_type": "USER", "actor_id": "bob", "action": "PROJECT_READ", "resource_type": "PROJECT"}
        listed = await ask(caller, "/authz/list-objects", body)
        assert [item["id"] for item in listed["items"]] == expected
        for limit in (1, 2, 5, 6, 5000):
            pages = await every_page(caller, RESOURCE, asked, limit)
            assert [one for page in pages for one in page] == [{"type": "project", "id": one} for one in expected]
            assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert (await ask(mallory, RESOURCE, question("user:alice", "read", "project", "")))["results"] == []
    for one in (await ask(bob, RESOURCE, asked))["results"]:
        assert await ask(bob, EVALUATION, {**asked, "resource": one}) == {"decision": True}


async def test_actions_are_those_of_list_actions(alice: Caller, bob: Caller, org: str, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_VIEWER")
    for caller, subject, kind, where in (
        (alice, "alice", "project", project),
        (bob, "bob", "project", project),
        (alice, "bob", "project", project),
        (bob, "bob", "organization", org),
    ):
        body = {"actor_type": "USER", "actor_id": subject, "resource_type": kind.upper(), "resource_id": where}
        listed = (await ask(caller, "/authz/list-actions", body))["actions"]
        asked = {key: value for key, value in question(f"user:{subject}", "", kind, where).items() if key != "action"}
        assert (await ask(caller, ACTION, asked))["results"] == [{"name": name} for name in listed]
        assert [one["name"] for page in await every_page(caller, ACTION, asked, 3) for one in page] == listed
        for name in listed:
            assert await ask(caller, EVALUATION, {**asked, "action": {"name": name}}) == {"decision": True}


async def test_a_limit_of_nothing_tells_the_total(alice: Caller, project: str) -> None:
    for path, total in ((SUBJECT, 1), (RESOURCE, 1), (ACTION, 22)):
        asked = question("user:alice", "read", "project", project)
        answer = await ask(alice, path, {**asked, "page": {"limit": 0}})
        assert (answer["results"], answer["page"]["count"], answer["page"]["total"]) == ([], 0, total)
        assert await ask(alice, path, {**asked, "page": {"token": answer["page"]["next_token"]}}) == answer


async def test_a_token_is_good_for_its_own_search_and_limit(alice: Caller, org: str, project: str) -> None:
    await alice.new_project(org)
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_VIEWER")
    asked = question("user:alice", "read", "project", project)
    for path in (SUBJECT, RESOURCE, ACTION):
        token = (await ask(alice, path, {**asked, "page": {"limit": 1}}))["page"]["next_token"]
        assert token
        await ask(alice, path, {**asked, "page": {"token": token, "limit": 1}})
        others = [{**asked, "page": {"token": token, "limit": 2}}]
        others += [{**question("agent:x", "delete", "organization", org), "page": {"token": token}}]
        for tampered in (
            "x",
            "é",
            token[:-5],
            made("nonsense", 1),
            made("\ud800", 1),
            made(None, -1),
            made("a", 10**9),
            made(1, 1),
            made([], True),
        ):
            others.append({**asked, "page": {"token": tampered}})
        for other in others:
            problem = read_problem(await alice.post(path, other, 422), 422, "invalid")
            assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]] == [("/page/token", "invalid_cursor")]
        bound_to = json.loads(base64.urlsafe_b64decode(token + "=="))[2]
        for after in ("\ud800", "\x00", "é"):
            status = (await alice.post(path, {**asked, "page": {"token": made(after, 0, bound_to)}}, None)).status_code
            assert status == (422 if path == RESOURCE else 200)


def made(after: Any, limit: Any, bound_to: str = "x") -> str:
    """A token somebody made up."""
    return base64.urlsafe_b64encode(json.dumps([after, limit, bound_to]).encode()).decode().rstrip("=")


async def test_the_metadata_leads_to_every_endpoint(service: Service) -> None:
    metadata = (await service.client.get(METADATA)).json()
    base = metadata.pop("policy_decision_point")
    assert base == "http://service"
    assert list(metadata.values()) == [f"{base}/api{path}" for path in ALL]
    for address in metadata.values():
        assert (await service.client.post(address, json=question("user:x", "read", "project", str(uuid4())))).status_code == 401
    assert (await service.client.head(METADATA)).status_code in {200, 405}


async def test_the_metadata_tells_addresses_as_the_caller_reaches_them(database_url: str, tmp_path: Path) -> None:
    settings = make_settings(database_url, tmp_path, web={"base_path": "/v9"})
    for peer, scheme in (("127.0.0.1", "https"), ("203.0.113.7", "http")):
        async with open_service(settings, peer=peer) as service:
            headers = {"Host": "saas.example.com:8443", "X-Forwarded-Proto": "HTTPS"}
            metadata = (await service.client.get(METADATA, headers=headers)).json()
            assert metadata["policy_decision_point"] == f"{scheme}://saas.example.com:8443"
            assert metadata["search_action_endpoint"] == f"{scheme}://saas.example.com:8443/v9/access/v1/search/action"
            for odd in ("javascript", "https, http", ""):
                metadata = (await service.client.get(METADATA, headers={"X-Forwarded-Proto": odd})).json()
                assert metadata["policy_decision_point"] == "http://service"
            for host in ("", "a b", "[::1", "a:b:c", "x:99999999", "x/y?z#"):
                assert (await service.client.get(METADATA, headers={"Host": host, "X-Forwarded-Proto": "https"})).status_code < 500


async def test_without_the_api_there_is_no_metadata(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path, web={"enabled": False})) as service:
        assert (await service.client.get(METADATA)).status_code == 404
