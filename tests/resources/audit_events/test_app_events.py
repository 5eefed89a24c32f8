"""What applications add to the trail, and finding it again."""

from typing import Any
from uuid import uuid4

import pytest

from app.audit.trail import Origin, Subject, make_event
from app.core.actors import Actor, Identity
from app.core.resources import ResourceRef, ResourceType
from tests.conftest import Caller, Service
from tests.support.answers import events_of, pointers_of, read_problem
from tests.support.keys import make_key
from tests.support.record import new_place

pytestmark = pytest.mark.anyio


async def test_an_application_adds_what_happened(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"])
    await alice.grant("PROJECT", project["id"], "service:billing", "PROJECT_EDITOR")
    body = {
        "organization_id": organization["id"],
        "project_id": project["id"],
        "action": "invoice.sent",
        "outcome": "FAILED",
        "targets": [{"type": "invoice", "id": "4711", "name": "Rechnung Ü"}],
        "context": {"amount": "12.50", "nested": {"a": [1, None]}},
    }
    billing = service.as_("service:billing")
    added = (await billing.post("/audit-events", body, headers={"X-Correlation-ID": "order-1"})).json()
    assert (added["action"], added["outcome"], added["correlation_id"]) == ("invoice.sent", "FAILED", "order-1")
    assert added["actor"] == {"type": "SERVICE", "id": "billing"}
    assert added["resource"] == {"type": "PROJECT", "id": project["id"]}
    assert added["details"] == {"targets": body["targets"], "context": body["context"]}
    assert await events_of(alice, action="invoice.sent") == [added]
    of_all = {"organization_id": organization["id"], "action": "app.started"}
    assert (await alice.post("/audit-events", of_all)).json()["resource"] == {"type": "ORGANIZATION", "id": organization["id"]}


async def test_no_application_writes_what_only_the_service_says(alice: Caller, mallory: Caller) -> None:
    organization, foreign = await alice.new_organization(), await mallory.new_organization()
    before = await events_of(alice)
    place = {"organization_id": organization["id"]}
    for action in ("PROJECT_CREATED", "project_created", "Invoice.Sent", "a", ".a", "a.", "a..b", "a b.c", "a.b" * 60):
        assert pointers_of(await alice.post("/audit-events", {**place, "action": action}, 422)) == ["/action"], action
    for extra in (
        {"actor": "user:bob"},
        {"occurred_at": "2020-01-01T00:00:00Z"},
        {"targets": [{"type": "x"}]},
        {"context": {"a": "x" * 70_000}},
    ):
        await alice.post("/audit-events", {**place, "action": "a.b", **extra}, 422)
    read_problem(await mallory.post("/audit-events", {**place, "action": "a.b"}, 404), 404)
    project = await mallory.new_project(foreign["id"])
    crossed = {"organization_id": organization["id"], "project_id": project["id"], "action": "a.b"}
    assert pointers_of(await mallory.post("/audit-events", crossed, 422)) == ["/organization_id"]
    assert [event for event in await events_of(alice) if event["outcome"] == "SUCCESS"] == before


@pytest.mark.parametrize("needle", ["weiß", "WEISS", "50%", "a_b", "\\", '"', 'y "H', "C:\\t", "日本"])
async def test_text_is_found_wherever_it_stands_in_an_event(alice: Caller, needle: str) -> None:
    organization = await alice.new_organization()
    place = {"organization_id": organization["id"]}
    texts = {"weiß": "Grün-Weiß", "WEISS": "weiss", "50%": "is 50% off", "a_b": "xa_by", "日本": "in 日本 today"}
    texts |= {"\\": "C:\\temp", '"': 'say "hi"', 'y "H': 'say "hi"', "C:\\t": "c:\\Temp"}
    told: dict[str, Any] = {**place, "action": "note.added", "context": {"text": texts[needle]}}
    added = (await alice.post("/audit-events", told)).json()
    await alice.post("/audit-events", {**place, "action": "note.added", "context": {"text": "grau, 50 off, aXb"}})
    found = await events_of(alice, text=needle, action="note.added")
    assert [event["id"] for event in found] == [added["id"]]
    assert [event["action"] for event in await events_of(alice, text="ORGANIZATION_CRE")] == ["ORGANIZATION_CREATED"]


async def test_what_speaks_of_a_secret_is_blanked_however_deep(alice: Caller) -> None:
    organization = await alice.new_organization()
    usage = {"input_tokens": 7}
    context = {"password": "p", "usage": usage, "calls": [{"Authorization": {"scheme": "s"}, "url": "u"}, [{"api_token": 1}]]}
    added = (await alice.post("/audit-events", {"organization_id": organization["id"], "action": "a.b", "context": context})).json()
    calls = [{"Authorization": "***", "url": "u"}, [{"api_token": "***"}]]
    assert added["details"]["context"] == {"password": "***", "usage": usage, "calls": calls}
    assert await events_of(alice, action="a.b") == [added]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "apiKey",
            "api_key",
            "x-api-key",
            "API key",
            "apikeyhash",
            "apiKeyValid",
            "privateKey",
            "PRIVATE_KEY_PEM",
            "accessKey",
        ),
        *(
            "passwd",
            "db_passwd",
            "Password",
            "passphrase",
            "credential",
            "awsCredentials",
            "Cookie",
            "set-cookie",
            "cookies",
            "jwt",
            "JWT_value",
        ),
        *("client_secret", "accessToken", "Proxy-Authorization", "pepper"),
    ],
)
def test_a_name_that_speaks_of_a_secret_is_known(name: str) -> None:
    for value in ("text", 7, {"inner": "text"}, ["text"]):
        assert told_with({name: value, "other": [{name: value}]}) == {name: "***", "other": [{name: "***"}]}


@pytest.mark.parametrize("name", ["api_keys", "input_tokens"])
def test_how_many_there_are_is_no_secret(name: str) -> None:
    assert told_with({name: 7}) == {name: 7}
    for value in ("text", {"inner": "text"}, ["text"]):
        assert told_with({name: value}) == {name: "***"}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "api_key_id",
            "apiKeyId",
            "api_key_ids",
            "api_key_prefix",
            "parent_api_key_id",
            "private_key_id",
            "access_key_id",
            "api_key_name",
        ),
        *(
            "operation_key",
            "idempotency_key",
            "key",
            "keys",
            "public_key",
            "monkey",
            "name",
            "prefix",
            "changed",
            "passed",
            "trace_ids",
            "path",
        ),
    ],
)
def test_a_name_that_only_tells_which_key_it_was_stays(name: str) -> None:
    assert told_with({name: "text"}) == {name: "text"}


def told_with(details: dict[str, Any]) -> Any:
    """The details of an event as they would be stored."""
    subject = Subject(ResourceRef(ResourceType.PROJECT, uuid4()), uuid4())
    return make_event(Identity(Actor.from_subject("user:alice"), "header"), Origin(), "a.b", subject, details)["details"]


async def test_what_the_service_tells_of_its_own_keys_is_not_blanked(alice: Caller) -> None:
    _, project = await new_place(alice)
    made = (await make_key(alice, "PROJECT", project["id"], "PROJECT_EDITOR"))["api_key"]
    rotated = (await alice.post(f"/api-keys/{made['id']}/rotate", {}, 200)).json()["api_key"]
    await alice.delete(f"/api-keys/{made['id']}")
    events = await events_of(alice)
    of_the_key = [event for event in events if event["details"].get("api_key_id") == made["id"]]
    assert len(of_the_key) >= 4
    assert {event["details"]["api_key_prefix"] for event in of_the_key} == {made["prefix"], rotated["prefix"]}
    assert "***" not in str(events)


async def test_events_are_found_by_address_and_by_who_was_acted_for(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    await alice.grant("ORGANIZATION", organization["id"], "agent:helper", "ORG_ADMIN")
    helper = service.as_("agent:helper")
    headers = {"X-SaaSBase-On-Behalf-Of": "user:alice", "X-Forwarded-For": "2001:DB8::0:1"}
    await helper.post("/projects", {"organization_id": organization["id"], "name": "p"}, headers=headers)
    (event,) = await events_of(alice, on_behalf_of="user:alice")
    assert (event["actor"]["id"], event["on_behalf_of"], event["ip"]) == ("helper", "user:alice", "2001:db8::1")
    assert await events_of(alice, ip="2001:db8:0::1") == [event]
    assert await events_of(alice, ip="192.0.2.1") == []
    assert pointers_of(await alice.get("/audit-events", 422, params={"ip": "nowhere"})) == ["query.ip"]
