"""A key as proof of identity: what it opens, and what it never does."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy.exc import DBAPIError

from app.authn.api_keys import KeyUses
from app.db.engine import Database
from app.settings import Settings
from tests.conftest import Caller, Service, open_service
from tests.support.answers import read_problem, run_sql
from tests.support.jobs import stop_jobs
from tests.support.keys import after, change_key, key_of, make_key, shows
from tests.support.server import run_server
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

SAME = {"X-Request-ID": "same"}
UNKNOWN = "sbk_abcdefghij01." + "A" * 43


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


async def test_every_key_that_is_not_valid_gets_the_same_answer(service: Service, alice: Caller, org: str) -> None:
    made = [await make_key(alice, "ORGANIZATION", org, "ORG_OWNER") for _ in range(4)]
    await change_key(service, made[0]["api_key"]["id"], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await alice.post(f"/api-keys/{made[1]['api_key']['id']}/revoke", expect=200)
    await alice.delete(f"/api-keys/{made[2]['api_key']['id']}")
    good, other = made[3]["token"], await make_key(alice, "ORGANIZATION", org, "ORG_OWNER", allowed_cidrs=["10.0.0.0/8"])
    await shows(service, good).get(f"/organizations/{org}")
    forged = [good[:17] + UNKNOWN[17:], good[:-1] + ("a" if good[-1] != "a" else "b"), good[:-6], good.upper(), good + "x", UNKNOWN, "x"]
    shown = [*(key["token"] for key in made[:3]), other["token"], *forged]
    answers = [await shows(service, token).get(f"/organizations/{org}", 401, headers=SAME) for token in shown]
    read_problem(answers[0], 401)
    assert answers[0].headers["www-authenticate"].startswith("Bearer")
    assert {answer.content for answer in answers} == {answers[0].content}
    assert all(answer.headers == answers[0].headers for answer in answers)


async def test_a_bad_credential_never_falls_through_to_the_actor_header(alice: Caller, org: str) -> None:
    await alice.get(f"/organizations/{org}")
    for shown in (f"Bearer {UNKNOWN}", "Bearer", "Bearer ", "", "Basic YTpi", "Bearer a b", f"bearer{UNKNOWN}"):
        read_problem(await alice.get(f"/organizations/{org}", 401, headers={"Authorization": shown}), 401)


async def test_a_second_authorization_header_is_refused_even_when_both_are_good(service: Service, alice: Caller, org: str) -> None:
    good = ("Authorization", f"Bearer {(await make_key(alice, 'ORGANIZATION', org, 'ORG_OWNER'))['token']}")
    address = f"/api/organizations/{org}"
    assert (await service.client.get(address, headers=[good])).status_code == 200
    for second in (good, ("Authorization", f"Bearer {UNKNOWN}"), ("authorization", "")):
        assert (await service.client.get(address, headers=[good, second])).status_code == 401
        assert (await service.client.get(address, headers=[second, good])).status_code == 401


async def test_a_good_key_wins_over_the_actor_header(service: Service, alice: Caller, org: str) -> None:
    made = await make_key(alice, "ORGANIZATION", org, "ORG_ADMIN")
    both = shows(service, made["token"], **{"X-SaaSBase-Actor": "user:mallory"})
    project = await both.new_project(org)
    assert project["created_by_subject"] == f"api_key:{made['api_key']['id']}"


async def test_the_scheme_is_read_in_any_case(service: Service, alice: Caller, org: str) -> None:
    token = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["token"]
    for scheme in ("bearer", "BEARER"):
        await Caller(service.client, {"Authorization": f"{scheme} {token}"}).get(f"/organizations/{org}")


async def test_a_key_is_not_believed_in_the_actor_header(service: Service, alice: Caller, org: str) -> None:
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_OWNER"))["api_key"]["id"]
    await service.as_(f"api_key:{key}").get(f"/organizations/{org}", 401)


async def test_a_key_of_the_reference_keeps_working(service: Service, alice: Caller, org: str) -> None:
    made = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["api_key"]
    secret = "-_" + "Ab3" * 13 + "_-"
    await run_sql(
        service,
        "INSERT INTO api_key_secrets (prefix, api_key_id, organization_id, hash, hash_algorithm, created_at)"
        " SELECT 'reference001', id, organization_id, :hash, 'sha256', created_at FROM api_keys WHERE prefix = :prefix",
        {"hash": hashlib.sha256(secret.encode()).hexdigest(), "prefix": made["prefix"]},
    )
    await shows(service, f"sbk_reference001.{secret}").get(f"/organizations/{org}")
    await shows(service, f"sbk_reference001.{secret[:-1]}x").get(f"/organizations/{org}", 401)


async def test_a_key_works_until_it_ends(service: Service, alice: Caller, org: str) -> None:
    bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER", expires_at=after(seconds=60))
    await bearer.get(f"/organizations/{org}")
    await change_key(service, key["id"], expires_at=datetime.now(UTC))
    await bearer.get(f"/organizations/{org}", 401)
    assert (await alice.get(f"/api-keys/{key['id']}")).json()["is_active"] is False


async def test_networks_bind_a_key_to_the_address_the_proxy_saw(service: Service, alice: Caller, org: str) -> None:
    bearer, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER", allowed_cidrs=["::ffff:10.1.0.0/112", "2001:db8::/32"])
    for address, status in {
        "10.1.2.3": 200,
        "::ffff:10.1.2.3": 200,
        "2001:db8::1": 200,
        "10.2.0.1": 401,
        "2001:db9::1": 401,
        "10.1.2.3, 192.0.2.9": 401,  # what a caller put in front of what the proxy appended
        "nonsense": 401,
    }.items():
        await bearer.get(f"/organizations/{org}", status, headers={"X-Forwarded-For": address})
    await bearer.get(f"/organizations/{org}", 401)


async def test_a_forwarded_address_from_an_untrusted_peer_opens_nothing(
    settings: Settings, service: Service, alice: Caller, org: str
) -> None:
    token = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER", allowed_cidrs=["10.0.0.0/8"]))["token"]
    async with open_service(settings, peer="192.0.2.1") as outside:
        await shows(outside, token).get(f"/organizations/{org}", 401, headers={"X-Forwarded-For": "10.1.2.3"})
    async with open_service(settings, peer="10.1.2.3") as inside:
        await shows(inside, token).get(f"/organizations/{org}")


async def test_a_key_of_a_project_sees_nothing_else(service: Service, alice: Caller, org: str) -> None:
    mine, other = await alice.new_project(org), await alice.new_project(org)
    hidden = await alice.new_document(other["id"])
    await make_key(alice, "ORGANIZATION", org, "ORG_OWNER")
    await make_key(alice, "PROJECT", other["id"], "PROJECT_OWNER")
    bearer, key = await key_of(service, alice, "PROJECT", mine["id"], "PROJECT_OWNER")
    shown = await bearer.new_document(mine["id"])
    for path in (f"/organizations/{org}", f"/projects/{other['id']}", f"/documents/{hidden['id']}", f"/organizations/{org}/groups"):
        await bearer.get(path, 404)
    for path, ids in {"/organizations": [], "/projects": [mine["id"]], "/documents": [shown["id"]]}.items():
        assert [item["id"] for item in (await bearer.get(path)).json()["items"]] == ids
    assert [item["id"] for item in (await bearer.get("/api-keys", params={"organization_id": org})).json()] == [key["id"]]
    events = (await bearer.get("/audit-events", params={"size": 500})).json()["items"]
    assert {item["project_id"] for item in events} == {mine["id"]}
    await bearer.post("/projects", {"organization_id": org, "name": "more"}, 404)
    await bearer.post("/api-keys", {"name": "k", "scope_type": "ORGANIZATION", "scope_id": org, "role": "ORG_MEMBER"}, 404)


async def test_a_key_never_creates_an_organization(service: Service, alice: Caller, org: str) -> None:
    bearer, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_OWNER")
    await bearer.post("/organizations", {"slug": "of-a-key"}, 403)
    await service.as_("user:zoe").get("/organizations/by-slug/of-a-key", 404)


async def test_a_key_is_given_no_other_role_and_joins_no_group(alice: Caller, org: str) -> None:
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["api_key"]["id"]
    await alice.grant("ORGANIZATION", org, f"api_key:{key}", "ORG_ADMIN", 422)
    await alice.post(f"/organizations/{org}/groups", {"group_id": "devs"})
    await alice.post(f"/organizations/{org}/groups/devs/members", {"member_type": "API_KEY", "member_id": key}, 422)


async def test_narrowed_actions_hold_for_reads_writes_and_lists(service: Service, alice: Caller, org: str) -> None:
    project = await alice.new_project(org)
    document = await alice.new_document(project["id"])
    body = {"actions": ["PROJECT_READ", "DOCUMENT_READ"]}
    bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_OWNER", **body)
    assert key["actions"] == ["DOCUMENT_READ", "PROJECT_READ"]
    await bearer.get(f"/projects/{project['id']}")
    assert (await bearer.get(f"/documents/{document['id']}/content")).content == b"hello"
    assert (await bearer.get("/documents")).json()["total_items"] == 1
    await bearer.patch(f"/projects/{project['id']}", {"name": "x"}, 403)
    await bearer.upload(f"/projects/{project['id']}/documents", expect=403)
    await bearer.delete(f"/documents/{document['id']}", 403)
    await bearer.delete(f"/organizations/{org}", 404)
    await bearer.get(f"/organizations/{org}", 404)
    for path in ("/organizations", "/audit-events", f"/api-keys?organization_id={org}"):
        await bearer.get(path, 403)
    await bearer.grant("ORGANIZATION", org, "user:mallory", "ORG_MEMBER", 404)
    await bearer.grant("PROJECT", project["id"], "user:mallory", "PROJECT_VIEWER", 403)


async def test_deleting_what_a_key_belongs_to_ends_it(service: Service, alice: Caller, org: str) -> None:
    project = await alice.new_project(org)
    of_project, key = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_VIEWER")
    of_org, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER")
    await of_project.get(f"/projects/{project['id']}")
    await alice.delete(f"/projects/{project['id']}")
    await of_project.get("/projects", 401)
    await alice.get(f"/api-keys/{key['id']}", 404)
    await of_org.get(f"/organizations/{org}")
    await alice.delete(f"/organizations/{org}")
    await of_org.get("/projects", 401)
    assert await run_sql(service, "SELECT prefix FROM api_key_secrets") == []
    assert await run_sql(service, "SELECT id FROM memberships") == []


async def test_a_request_with_a_key_writes_nothing_and_is_noted_later(service: Service, alice: Caller, org: str) -> None:
    await stop_jobs("last use of keys")  # what it is about to write, nobody else writes
    bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER")
    database = service.runtime.context.database
    with statements_of_requests(database) as sent:
        await bearer.get(f"/organizations/{org}", headers={"X-Forwarded-For": "192.0.2.7"})
    assert {statement.split()[0] for statement in sent} <= {"SELECT", "WITH"}
    assert len(sent) == 1  # the key, and the row with the roles
    await service.runtime.key_uses.write(database)
    used = (await alice.get(f"/api-keys/{key['id']}")).json()
    assert used["last_used_ip"] == "192.0.2.7"
    assert abs(datetime.now(UTC) - datetime.fromisoformat(used["last_used_at"])) < timedelta(seconds=30)
    assert (used["updated_at"], used["is_active"]) == (key["updated_at"], True)


async def test_a_refused_key_counts_as_not_used(service: Service, alice: Caller, org: str) -> None:
    bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER", allowed_cidrs=["10.0.0.0/8"])
    await bearer.get(f"/organizations/{org}", 401)
    await service.runtime.key_uses.write(service.runtime.context.database)
    assert (await alice.get(f"/api-keys/{key['id']}")).json()["last_used_at"] is None


async def test_what_is_not_yet_written_is_written_at_the_end(settings: Settings) -> None:
    async with open_service(settings) as first:
        alice = first.as_("user:alice")
        organization = await alice.new_organization()
        bearer, key = await key_of(first, alice, "ORGANIZATION", organization["id"], "ORG_MEMBER")
        await bearer.get(f"/organizations/{organization['id']}")
    async with open_service(settings) as second:
        assert (await second.as_("user:alice").get(f"/api-keys/{key['id']}")).json()["last_used_at"] is not None


async def test_a_use_that_could_not_be_written_is_kept_and_never_replaces_a_later_one(
    service: Service, alice: Caller, org: str, tmp_path: Path
) -> None:
    made = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["api_key"]["id"]
    uses, broken = KeyUses(), Database.from_url(f"sqlite:///{tmp_path / 'empty.db'}")
    uses.note(UUID(made), "192.0.2.1")
    with pytest.raises(DBAPIError):
        await uses.write(broken)
    await broken.aclose()
    later = datetime.now(UTC) + timedelta(hours=1)
    await change_key(service, made, last_used_at=later, last_used_ip="192.0.2.2")
    assert await uses.write(service.runtime.context.database) == 1
    assert await uses.write(service.runtime.context.database) == 0
    assert (await alice.get(f"/api-keys/{made}")).json()["last_used_ip"] == "192.0.2.2"
    await change_key(service, made, last_used_at=None)
    uses.note(UUID(made), "fe80::1%" + "x" * 300)  # a zone can be as long as a proxy lets it be
    assert await uses.write(service.runtime.context.database) == 1


def test_a_key_revoked_in_one_process_is_refused_by_the_other_at_once(database_url: str, tmp_path: Path) -> None:
    with run_server(database_url, tmp_path) as one, run_server(database_url, tmp_path) as two, httpx.Client(timeout=20) as client:
        alice = {"X-SaaSBase-Actor": "user:alice"}
        org = client.post(f"{one.url}/api/organizations", json={"slug": "two-processes"}, headers=alice).json()["id"]
        body = {"name": "k", "scope_type": "ORGANIZATION", "scope_id": org, "role": "ORG_MEMBER"}
        for _ in range(5):
            made = client.post(f"{one.url}/api/api-keys", json=body, headers=alice).json()
            bearer = {"Authorization": f"Bearer {made['token']}"}
            assert client.get(f"{two.url}/api/organizations/{org}", headers=bearer).status_code == 200
            assert client.post(f"{one.url}/api/api-keys/{made['api_key']['id']}/revoke", headers=alice).status_code == 200
            assert client.get(f"{two.url}/api/organizations/{org}", headers=bearer).status_code == 401
            assert client.get(f"{one.url}/api/organizations/{org}", headers=bearer).status_code == 401
