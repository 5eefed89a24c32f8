"""API keys over HTTP: made, listed, changed, ended."""

import hashlib
import logging
import re
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Caller, Service
from tests.support.answers import events_of, next_link_of, pointers_of, read_problem
from tests.support.keys import after, key_of, make_key, shows

pytestmark = pytest.mark.anyio

FIELDS = {
    "id", "name", "prefix", "scope", "role", "actions", "allowed_cidrs", "may_act_for_others",
    "organization_id", "project_id", "expires_at", "last_used_at",
    "last_used_ip", "revoked_at", "metadata", "is_active", "created_at", "updated_at", "created_by_subject",
}  # fmt: skip


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


async def test_a_new_key_is_shown_whole_with_its_token(alice: Caller, org: str) -> None:
    project = await alice.new_project(org)
    made = await make_key(alice, "PROJECT", project["id"], "PROJECT_EDITOR", name=" ci ", metadata={"m": 1})
    key = made["api_key"]
    assert set(made) == {"api_key", "token"}
    assert set(key) == FIELDS
    assert re.fullmatch(rf"sbk_{key['prefix']}\.[0-9A-Za-z]{{49}}", made["token"])
    assert (key["name"], key["role"], key["metadata"], key["is_active"]) == ("ci", "PROJECT_EDITOR", {"m": 1}, True)
    assert key["may_act_for_others"] is False
    assert (key["scope"], key["organization_id"], key["project_id"]) == ({"type": "PROJECT", "id": project["id"]}, org, project["id"])
    assert key["created_by_subject"] == "user:alice"
    assert [key[name] for name in ("actions", "allowed_cidrs", "expires_at", "last_used_at", "last_used_ip", "revoked_at")] == [None] * 6
    assert (await alice.get(f"/api-keys/{key['id']}")).json() == key


async def test_making_a_key_is_recorded_as_a_key_and_as_a_grant(alice: Caller, org: str) -> None:
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER", name="ci"))["api_key"]
    made, granted = (await events_of(alice, organization_id=org))[-2:]
    about = {"api_key_id": key["id"], "api_key_prefix": key["prefix"], "role": "ORG_MEMBER", "name": "ci"}
    assert {made["action"], granted["action"]} == {"API_KEY_CREATED", "MEMBERSHIP_GRANTED"}
    grant = made if made["action"] == "MEMBERSHIP_GRANTED" else granted
    assert about.items() <= made["details"].items()
    assert about.items() <= granted["details"].items()
    assert grant["details"]["origin"] == "api_key"
    assert grant["resource"] == {"type": "ORGANIZATION", "id": org}


async def test_the_trail_tells_what_a_key_may_do_and_from_where(service: Service, alice: Caller, org: str) -> None:
    maker, parent = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN", may_act_for_others=True)
    ends = after(days=9)
    body = {"name": "ci", "scope_type": "ORGANIZATION", "scope_id": org, "role": "ORG_MEMBER", "actions": ["PROJECT_READ"]}
    limits = {"allowed_cidrs": ["10.0.0.0/8"], "may_act_for_others": True, "expires_at": ends}
    key = (await maker.post("/api-keys", {**body, **limits, "metadata": {"of": "nobody else"}}, 201)).json()["api_key"]
    events = {event["action"]: event["details"] for event in (await events_of(alice, organization_id=org))[-2:]}
    about = {"api_key_id": key["id"], "api_key_prefix": key["prefix"], "role": "ORG_MEMBER", "name": "ci"}
    scope = {"type": "ORGANIZATION", "id": org}
    made = {**about, **limits, "actions": ["PROJECT_READ"], "scope": scope, "parent_key_id": parent["id"]}
    assert events["API_KEY_CREATED"] == made
    assert events["MEMBERSHIP_GRANTED"] == {**about, "actor": f"api_key:{key['id']}", "origin": "api_key", "expires_at": ends}


async def test_the_token_is_in_no_other_answer_no_log_and_no_event(
    service: Service, alice: Caller, org: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await make_key(alice, "ORGANIZATION", org, "ORG_ADMIN")
    key, bearer = made["api_key"]["id"], shows(service, made["token"])
    rotated = (await alice.post(f"/api-keys/{key}/rotate", expect=200)).json()
    asked = {"action": "ORGANIZATION_READ", "resource_type": "ORGANIZATION", "resource_id": org}
    answers = [
        await bearer.get(f"/organizations/{org}"),
        await bearer.get(f"/organizations/{uuid4()}", 404),
        await alice.get(f"/api-keys/{key}"),
        await alice.get("/api-keys", params={"organization_id": org}),
        await alice.patch(f"/api-keys/{key}", {"name": "new"}),
        await alice.get("/authz/who-can-explain", params=asked),
        await alice.get("/memberships", params={"resource_type": "ORGANIZATION", "resource_id": org}),
        await alice.get("/audit-events", params={"organization_id": org, "size": 500}),
        await alice.post(f"/api-keys/{key}/revoke", expect=200),
        await bearer.get(f"/organizations/{org}", 401),
    ]
    told = "\n".join([caplog.text, *(answer.text + str(answer.headers) for answer in answers)])
    assert made["api_key"]["prefix"] in told
    for token in (made["token"], rotated["token"]):
        secret = token.partition(".")[2]
        for form in (secret, secret[:43], hashlib.sha256(secret[:43].encode()).hexdigest()):
            assert form not in told
    assert '"hash' not in "".join(answer.text for answer in answers)


async def test_a_value_that_cannot_be_is_named_and_leaves_no_key(alice: Caller, org: str) -> None:
    for changes, pointer in (
        ({"name": ""}, "/name"),
        ({"name": "  "}, "/name"),
        ({"role": "KING"}, "/role"),
        ({"scope_type": "DOCUMENT"}, "/scope_type"),
        ({"expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"actions": []}, "/actions"),
        ({"actions": ["FLY"]}, "/actions/0"),
        ({"actions": ["ORGANIZATION_DELETE"]}, "/actions"),
        ({"allowed_cidrs": []}, "/allowed_cidrs"),
        ({"allowed_cidrs": ["10.0.0.0/33"]}, "/allowed_cidrs/0"),
        ({"allowed_cidrs": ["10.0.0.0/8", "fe80::1%eth0/64"]}, "/allowed_cidrs/1"),
        ({"id": str(uuid4())}, "/id"),
        ({"organization_id": str(uuid4())}, "/organization_id"),
    ):
        body = {"name": "key", "scope_type": "ORGANIZATION", "scope_id": org, "role": "ORG_ADMIN", **changes}
        assert set(pointers_of(await alice.post("/api-keys", body, 422))) == {pointer}
    assert (await alice.get("/api-keys", params={"organization_id": org})).json() == []


async def test_a_role_of_the_organization_does_not_fit_a_project(alice: Caller, org: str) -> None:
    project = await alice.new_project(org)
    body = {"name": "key", "scope_type": "PROJECT", "scope_id": project["id"], "role": "ORG_MEMBER"}
    assert (await alice.post("/api-keys", body, 422)).json()["errors"][0]["pointer"] == "/role"


async def test_nobody_makes_a_key_for_more_than_he_holds(service: Service, alice: Caller, bob: Caller, mallory: Caller, org: str) -> None:
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_ADMIN")
    await alice.grant("ORGANIZATION", org, "user:carol", "ORG_MEMBER")
    body = {"name": "key", "scope_type": "ORGANIZATION", "scope_id": org, "role": "ORG_OWNER"}
    read_problem(await bob.post("/api-keys", body, 403), 403, "escalation")
    # Not even narrowed to what he holds: the role counts.
    read_problem(await bob.post("/api-keys", {**body, "actions": ["ORGANIZATION_READ"]}, 403), 403, "escalation")
    await bob.post("/api-keys", {**body, "role": "ORG_ADMIN"}, 201)
    await service.as_("user:carol").post("/api-keys", {**body, "role": "ORG_MEMBER"}, 403)
    await mallory.post("/api-keys", {**body, "role": "ORG_MEMBER"}, 404)
    await service.as_(None).post("/api-keys", {**body, "role": "ORG_MEMBER"}, 401)
    assert [key["created_by_subject"] for key in (await alice.get("/api-keys", params={"organization_id": org})).json()] == ["user:bob"]


async def test_lists_hold_the_keys_of_the_organization_or_of_one_scope(alice: Caller, mallory: Caller, org: str) -> None:
    project = await alice.new_project(org)
    first, second, gone = [
        (await make_key(alice, kind, where, "PROJECT_VIEWER"))["api_key"]["id"]
        for kind, where in (("ORGANIZATION", org), ("PROJECT", project["id"]), ("ORGANIZATION", org))
    ]
    await alice.post(f"/api-keys/{first}/revoke", expect=200)
    await alice.delete(f"/api-keys/{gone}")
    of_project = {"scope_type": "PROJECT", "scope_id": project["id"]}
    assert [key["id"] for key in (await alice.get("/api-keys", params={"organization_id": org})).json()] == [first, second]
    assert [key["id"] for key in (await alice.get("/api-keys", params=of_project)).json()] == [second]
    assert (await mallory.get("/api-keys", params={"organization_id": org})).json() == []


async def test_the_list_is_bounded_and_leads_to_the_rest(alice: Caller, org: str) -> None:
    for _ in range(3):
        await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER")
    of_organization, of_scope = {"organization_id": org}, {"scope_type": "ORGANIZATION", "scope_id": org}
    for query in (of_organization, of_scope):
        whole = await alice.get("/api-keys", params=query)
        assert (len(whole.json()), "link" in whole.headers) == (3, False)
        page = await alice.get("/api-keys", params={**query, "limit": 2})
        walked = page.json()
        assert len(walked) == 2
        page = await alice.get(next_link_of(page))
        assert ([*walked, *page.json()], "link" in page.headers) == (whole.json(), False)
    cursor = httpx.URL(next_link_of(await alice.get("/api-keys", params={**of_scope, "limit": 1}))).params["cursor"]
    for bad in ({"cursor": cursor}, {"cursor": "x"}, {"limit": 0}, {"limit": 1001}):
        assert pointers_of(await alice.get("/api-keys", 422, params={**of_organization, **bad})) == [f"query.{next(iter(bad))}"]


async def test_a_list_needs_to_know_whose_keys(alice: Caller) -> None:
    for params in ({}, {"scope_type": "PROJECT"}, {"scope_id": str(uuid4())}, {"scope_type": "DOCUMENT"}):
        assert pointers_of(await alice.get("/api-keys", 422, params=params))


async def test_only_who_manages_members_sees_a_key(service: Service, alice: Caller, mallory: Caller, org: str) -> None:
    await alice.grant("ORGANIZATION", org, "user:carol", "ORG_MEMBER")
    carol, key = service.as_("user:carol"), (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["api_key"]["id"]
    same = {"X-Request-ID": "same"}
    for method, path in (("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("POST", "/revoke"), ("DELETE", "")):
        body = {"json": {"name": "mine"}} if method == "PATCH" else {"json": {}} if path == "/rotate" else {}
        await carol.request(method, f"/api-keys/{key}{path}", 403, **body)
        invisible = await mallory.request(method, f"/api-keys/{key}{path}", 404, headers=same, **body)
        absent = await mallory.request(method, f"/api-keys/{uuid4()}{path}", 404, headers=same, **body)
        assert {**invisible.json(), "instance": ""} == {**absent.json(), "instance": ""}
    assert (await carol.get("/api-keys", params={"organization_id": org})).json() == []
    assert (await alice.get(f"/api-keys/{key}")).json()["is_active"] is True


async def test_a_patch_changes_what_it_names_and_nothing_else(alice: Caller, org: str) -> None:
    ends = after(days=9)
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_ADMIN", expires_at=ends, metadata={"a": 1}, allowed_cidrs=["10.9.8.7/8"]))[
        "api_key"
    ]
    assert key["allowed_cidrs"] == ["10.0.0.0/8"]
    renamed = (await alice.patch(f"/api-keys/{key['id']}", {"name": "new"})).json()
    assert {**renamed, "updated_at": 0} == {**key, "name": "new", "updated_at": 0}
    cleared = (await alice.patch(f"/api-keys/{key['id']}", {"expires_at": None, "allowed_cidrs": None, "metadata": {"b": 2}})).json()
    assert (cleared["expires_at"], cleared["allowed_cidrs"], cleared["metadata"], cleared["name"]) == (None, None, {"b": 2}, "new")
    events = await events_of(alice, organization_id=org, action="API_KEY_UPDATED")
    assert [{name: event["details"][name] for name in ("changed", "before", "after")} for event in events] == [
        {"changed": ["name"], "before": {"name": key["name"]}, "after": {"name": "new"}},
        {
            "changed": ["allowed_cidrs", "expires_at", "metadata"],
            "before": {"allowed_cidrs": ["10.0.0.0/8"], "expires_at": ends},
            "after": {"allowed_cidrs": None, "expires_at": None},
        },
    ]


async def test_a_patch_that_changes_nothing_records_nothing(alice: Caller, org: str) -> None:
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_ADMIN"))["api_key"]
    assert (await alice.patch(f"/api-keys/{key['id']}", {"name": None, "metadata": None})).json() == key
    assert await events_of(alice, organization_id=org, action="API_KEY_UPDATED") == []


async def test_a_patch_cannot_touch_what_a_key_is(alice: Caller, org: str) -> None:
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["api_key"]
    for name, value in (
        ("name", " "),
        ("role", "ORG_OWNER"),
        ("scope_id", str(uuid4())),
        ("actions", None),
        ("parent_key_id", None),
        ("revoked_at", None),
        ("expires_at", "2001-01-01T00:00:00Z"),
        ("expires_at", "2099-01-01T00:00:00"),
    ):
        assert pointers_of(await alice.patch(f"/api-keys/{key['id']}", {name: value}, 422)) == [f"/{name}"]
    assert (await alice.get(f"/api-keys/{key['id']}")).json() == key


async def test_a_stale_entity_tag_stops_a_patch(alice: Caller, org: str) -> None:
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["api_key"]["id"]
    stale = (await alice.get(f"/api-keys/{key}")).headers["etag"]
    fresh = (await alice.patch(f"/api-keys/{key}", {"name": "b"}, headers={"If-Match": stale})).headers["etag"]
    await alice.patch(f"/api-keys/{key}", {"name": "c"}, 412, headers={"If-Match": stale})
    await alice.patch(f"/api-keys/{key}", {"name": "c"}, headers={"If-Match": fresh})


async def test_a_revoked_key_stays_readable_and_unchangeable(service: Service, alice: Caller, org: str) -> None:
    bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN")
    first = (await alice.post(f"/api-keys/{key['id']}/revoke", expect=200)).json()
    assert (first["is_active"], first["revoked_at"] is None) == (False, False)
    assert (await alice.post(f"/api-keys/{key['id']}/revoke", expect=200)).json() == first
    read_problem(await alice.patch(f"/api-keys/{key['id']}", {"name": "x"}, 409), 409, "key_revoked")
    read_problem(await alice.patch(f"/api-keys/{key['id']}", {"expires_at": after(days=1)}, 409), 409, "key_revoked")
    read_problem(await alice.post(f"/api-keys/{key['id']}/rotate", {}, 409), 409, "key_revoked")
    assert (await alice.get(f"/api-keys/{key['id']}")).json() == first
    await bearer.get(f"/organizations/{org}", 401)
    events = [event["action"] for event in await events_of(alice, organization_id=org)]
    assert (events.count("API_KEY_REVOKED"), events.count("MEMBERSHIP_REVOKED"), events.count("API_KEY_UPDATED")) == (1, 1, 0)


async def test_a_deleted_key_is_gone_and_its_record_tells_of_it(service: Service, alice: Caller, org: str) -> None:
    bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN")
    await alice.delete(f"/api-keys/{key['id']}")
    await bearer.get(f"/organizations/{org}", 401)
    await alice.get(f"/api-keys/{key['id']}", 404)
    await alice.delete(f"/api-keys/{key['id']}", 404)
    await alice.patch(f"/api-keys/{key['id']}", {"name": "x"}, 404)
    await alice.post(f"/api-keys/{key['id']}/rotate", {}, 404)
    await alice.post(f"/api-keys/{key['id']}/revoke", expect=404)
    events = {event["action"]: event["details"].get("api_key_id") for event in await events_of(alice, organization_id=org)}
    assert events["API_KEY_REVOKED"] == events["API_KEY_DELETED"] == key["id"]


async def test_a_rotated_key_works_with_both_secrets_and_stays_the_same_key(service: Service, alice: Caller, org: str) -> None:
    old, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER")
    made = (await alice.post(f"/api-keys/{key['id']}/rotate", {}, 200)).json()
    new = shows(service, made["token"])
    assert made["api_key"]["id"] == key["id"]
    assert made["api_key"]["prefix"] != key["prefix"]
    for bearer in (old, new):
        await bearer.get(f"/organizations/{org}")
    (event,) = await events_of(alice, organization_id=org, action="API_KEY_ROTATED")
    about = {"api_key_id": key["id"], "api_key_prefix": made["api_key"]["prefix"], "role": "ORG_MEMBER", "name": key["name"]}
    prefixes = {"before": {"prefix": key["prefix"]}, "after": {"prefix": made["api_key"]["prefix"]}}
    assert event["details"] == {**about, "overlap_seconds": 24 * 3600, "changed": ["prefix"], **prefixes}


async def test_without_overlap_the_old_secret_ends_at_once(service: Service, alice: Caller, org: str) -> None:
    old, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER")
    made = (await alice.post(f"/api-keys/{key['id']}/rotate", {"overlap_seconds": 0}, 200)).json()
    await old.get(f"/organizations/{org}", 401)
    await shows(service, made["token"]).get(f"/organizations/{org}")


async def test_a_key_never_has_more_than_two_live_secrets(service: Service, alice: Caller, org: str) -> None:
    first = await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER")
    rotations = [await alice.post(f"/api-keys/{first['api_key']['id']}/rotate", {}, 200) for _ in range(3)]
    tokens = [first["token"], *(rotation.json()["token"] for rotation in rotations)]
    answers = [(await shows(service, token).get(f"/organizations/{org}", None)).status_code for token in tokens]
    assert answers == [401, 401, 200, 200]


async def test_an_overlap_is_bounded(alice: Caller, org: str) -> None:
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["api_key"]["id"]
    for seconds in (-1, 7 * 24 * 3600 + 1):
        assert pointers_of(await alice.post(f"/api-keys/{key}/rotate", {"overlap_seconds": seconds}, 422)) == ["/overlap_seconds"]


async def test_who_holds_less_than_a_key_can_stop_it(alice: Caller, bob: Caller, org: str) -> None:
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_ADMIN")
    for method, end in (("POST", "/revoke"), ("DELETE", "")):
        key = (await make_key(alice, "ORGANIZATION", org, "ORG_OWNER"))["api_key"]["id"]
        await bob.request(method, f"/api-keys/{key}{end}", 200 if end else 204)


async def test_who_holds_less_than_a_key_cannot_rotate_or_widen_it(alice: Caller, bob: Caller, org: str) -> None:
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_ADMIN")
    body = {"expires_at": after(days=1), "allowed_cidrs": ["10.0.0.0/8"]}
    key = (await make_key(alice, "ORGANIZATION", org, "ORG_OWNER", **body))["api_key"]["id"]
    read_problem(await bob.post(f"/api-keys/{key}/rotate", {}, 403), 403, "escalation")
    for wider in ({"expires_at": None}, {"expires_at": after(days=2)}, {"allowed_cidrs": None}, {"allowed_cidrs": ["0.0.0.0/0"]}):
        read_problem(await bob.patch(f"/api-keys/{key}", wider, 403), 403, "escalation")
    await bob.patch(f"/api-keys/{key}", {"expires_at": after(hours=1), "allowed_cidrs": ["10.1.0.0/16"]})
    await alice.patch(f"/api-keys/{key}", {"expires_at": None, "allowed_cidrs": None})
