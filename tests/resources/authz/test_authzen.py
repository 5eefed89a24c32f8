"""The AuthZEN Authorization API 1.0: the examples of its text in our words, and that it says what /authz says."""

from typing import Any
from uuid import uuid4

import pytest

from app.core.permissions import Action, Role
from app.resources.authz.authzen.names import SHORT_ACTIONS
from tests.conftest import Caller, Service
from tests.support.answers import denied_events_of, read_problem
from tests.support.keys import key_of
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

ABSENT = {"error": {"status": 404, "message": "There is no such resource, or you may not see it."}}
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
SUBJECT, RESOURCE, ACTION = (f"/access/v1/search/{what}" for what in ("subject", "resource", "action"))
ALL = (EVALUATION, EVALUATIONS, SUBJECT, RESOURCE, ACTION)


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.fixture
async def project(alice: Caller, org: str) -> str:
    return str((await alice.new_project(org))["id"])


def question(subject: str, action: str, kind: str, where: str, **more: Any) -> dict[str, Any]:
    """A question in AuthZEN's form."""
    actor_type, _, actor_id = subject.partition(":")
    return {"subject": {"type": actor_type, "id": actor_id}, "action": {"name": action}, "resource": {"type": kind, "id": where}, **more}


async def ask(caller: Caller, path: str, asked: Any, expect: int = 200, **options: Any) -> Any:
    """The answer."""
    return (await caller.post(path, asked, expect, **options)).json()


async def test_an_evaluation_is_a_decision(alice: Caller, bob: Caller, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_VIEWER")
    permitted, denied = question("user:bob", "PROJECT_READ", "project", project), question("user:bob", "update", "project", project)
    reason = "PROJECT_UPDATE is not granted; roles that carry it: ORG_OWNER, ORG_ADMIN, PROJECT_OWNER, PROJECT_EDITOR"
    for caller in (alice, bob):
        for path in (EVALUATION, EVALUATIONS):
            assert await ask(caller, path, permitted) == {"decision": True}
            assert await ask(caller, path, denied) == {"decision": False, "context": {"reason": reason}}
            assert await ask(caller, path, {**denied, "evaluations": []} if path == EVALUATIONS else denied) == await ask(
                caller, path, denied
            )


async def test_what_the_engine_does_not_use_is_accepted(alice: Caller, project: str) -> None:
    asked = question("user:alice", "read", "project", project, context={"time": "1985-10-26T01:22-07:00", "deep": [{"x": None}]})
    asked["subject"]["properties"] = {"department": "Sales", "device_id": "8:65:ee:17:7e:0b"}
    asked["resource"]["properties"] = {"library_record": {"isbn": "978-0593383322"}}
    asked["action"]["properties"] = {"method": "GET"}
    same = {"headers": {"X-Request-ID": "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"}}
    answer = await alice.post(EVALUATION, {**asked, "foo": "bar", "futureField": {"nested": True}}, 200, **same)
    assert answer.json() == {"decision": True}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == same["headers"]["X-Request-ID"]
    for path in (SUBJECT, RESOURCE, ACTION):
        assert (await ask(alice, path, {**asked, "foo": "bar"}))["results"]


async def test_what_is_not_of_the_schema_is_a_bad_request(alice: Caller, project: str) -> None:
    whole = question("user:alice", "read", "project", project)
    needed = {path: ["subject", "action", "resource"] for path in ALL} | {ACTION: ["subject", "resource"]}
    parts = [("subject", "type"), ("subject", "id"), ("action", "name"), ("resource", "type"), ("resource", "id")]
    may_be_absent = {SUBJECT: [("subject", "id")], RESOURCE: [("resource", "id")], ACTION: [("action", "name")]}
    for path in ALL:
        wrong: list[Any] = [{key: value for key, value in whole.items() if key != name} for name in needed[path]]
        wrong += [
            {**whole, entity: {key: value for key, value in whole[entity].items() if key != name}}
            for entity, name in parts
            if (entity, name) not in may_be_absent.get(path, ())
        ]
        wrong += [{**whole, "subject": "alice"}, {**whole, "resource": {"type": 1, "id": project}}, [], "x", 1, {}, {**whole, "context": 1}]
        wrong += [{**whole, "action": {"name": 123}}] if path != ACTION else []
        for body in wrong:
            refused = await alice.post(path, body, 400)
            problem = refused.json()
            assert (refused.headers["content-type"], problem["code"]) == ("application/problem+json", "bad_request"), body
            assert problem["errors"]
        for content, kind in ((b"{", "application/json"), (b"", "application/json"), (b"\xff", "application/json"), (b"{}", "text/plain")):
            refused = await alice.request("POST", path, 400, content=content, headers={"Content-Type": kind})
            assert refused.json()["code"] == "bad_request"
        await alice.request("POST", path, 400)
    await ask(alice, EVALUATIONS, {**whole, "options": {"evaluations_semantic": "sometimes"}}, 400)
    pages: list[Any] = [{"limit": -1}, {"limit": "many"}, {"token": 5}, {"token": "x" * 10_000}, []]
    for page in pages:
        await ask(alice, SUBJECT, {**whole, "page": page}, 400)


async def test_names_are_taken_in_any_case_and_short(alice: Caller, org: str, project: str) -> None:
    document = (await alice.new_document(project))["id"]
    for kind, name, action in (
        ("Project", "Read", "PROJECT_READ"),
        ("DOCUMENT", "write", "DOCUMENT_WRITE"),
        ("document", "document_share", "DOCUMENT_SHARE"),
        ("project", "Member_Manage", "MEMBER_MANAGE"),
        ("document", "update", None),
        ("project", "create", None),
        ("project", "FLY", None),
    ):
        where = document if kind.lower() == "document" else project
        answer = await ask(alice, EVALUATION, question("USER:alice", name, kind, where))
        assert answer["decision"] == (action is not None), name
        stranger = await ask(alice, EVALUATION, question("User:bob", name, kind, where))
        told = stranger["context"].get("reason", "") if action else stranger["context"]["error"]["message"]
        assert told.startswith(f"{action} is" if action else "action.name is no action")
    assert {(kind.value, short, action.value) for (kind, short), action in SHORT_ACTIONS.items()} == {
        *(("ORGANIZATION", verb, f"ORGANIZATION_{verb.upper()}") for verb in ("read", "update", "delete")),
        *(("PROJECT", verb, f"PROJECT_{verb.upper()}") for verb in ("read", "update", "delete")),
        *(("DOCUMENT", verb, f"DOCUMENT_{verb.upper()}") for verb in ("read", "write", "delete", "share")),
        *(("API_CALL", verb, f"API_CALL_{verb.upper()}") for verb in ("read", "write", "delete", "share")),
    }


async def test_what_names_nothing_is_denied_and_found_nowhere(alice: Caller, project: str) -> None:
    whole = question("user:alice", "read", "project", project)
    for entity, wrong, words in (
        ("subject", {"type": "spaceship", "id": "alice"}, "subject.type is none of user, service, agent, group, api_key"),
        ("subject", {"type": "user", "id": " "}, "subject.id is empty"),
        ("subject", {"type": "user", "id": "a\x00b"}, "subject.id has a control character"),
        ("subject", {"type": "user", "id": "x" * 300}, "subject.id is longer than 256 characters"),
        ("resource", {"type": "record", "id": project}, "resource.type is none of organization, project, document, api_call"),
        ("resource", {"type": "project", "id": "record-1"}, "resource.id is not a UUID"),
        ("action", {"name": "can_read"}, "action.name is no action, and short for none on a resource of type project"),
    ):
        context = {"error": {"status": 400, "message": words}}
        asked = {**whole, entity: wrong}
        assert await ask(alice, EVALUATION, asked) == {"decision": False, "context": context}
        ignored = {"subject": {SUBJECT} if "type" in wrong and wrong["type"] == "user" else set(), "action": {ACTION}}.get(entity, set())
        ignored |= {RESOURCE} if "id" in wrong and wrong["id"] == "record-1" else set()
        for path in {SUBJECT, RESOURCE, ACTION} - ignored:
            nothing = {"page": {"next_token": "", "count": 0, "total": 0}, "context": context, "results": []}
            assert await ask(alice, path, asked) == nothing, (path, asked)
        for path in ignored:
            assert await ask(alice, path, asked) == await ask(alice, path, whole)


async def test_decisions_are_those_of_check_for_every_role_and_action(service: Service, alice: Caller, org: str, project: str) -> None:
    document = (await alice.new_document(project))["id"]
    places = {"ORGANIZATION": org, "PROJECT": project, "DOCUMENT": document}
    roles = [role for role in Role if not role.value.startswith("API_CALL")]
    for role in roles:
        await alice.grant(role.level.value, places[role.level.value], f"user:{role.value}", role.value)
    for name in (*(role.value for role in roles), "nobody"):
        asked = [(action.value, kind, where) for action in Action for kind, where in places.items()]
        checks = [
            {"actor_type": "USER", "actor_id": name, "action": action, "resource_type": kind, "resource_id": where}
            for action, kind, where in asked
        ]
        evaluations = [question(f"user:{name}", *one) for one in asked]
        for caller in (alice, service.as_(f"user:{name}"), service.as_("user:ORG_MEMBER")):
            expected = [one["allowed"] for one in (await ask(caller, "/authz/batch-check", {"checks": checks}))["results"]]
            decisions = (await ask(caller, EVALUATIONS, {"evaluations": evaluations}))["evaluations"]
            assert [one["decision"] for one in decisions] == [bool(allowed) for allowed in expected]
            unanswered = [one.get("context") == ABSENT for one in decisions]
            assert unanswered == [allowed is None for allowed in expected]


async def test_members_beside_the_evaluations_are_their_defaults(alice: Caller, org: str, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_EDITOR")
    bob = question("user:bob", "read", "project", project, context={"time": "2024-05-31T15:22-07:00"})
    evaluations = [
        {},
        {"action": {"name": "delete"}},
        {"resource": {"type": "organization", "id": org}},
        {"subject": {"type": "user", "id": "alice"}, "action": {"name": "delete"}, "context": {"source": "batch-override"}},
    ]
    answer = await ask(alice, EVALUATIONS, {**bob, "evaluations": evaluations, "options": {"another_option": "value"}})
    assert set(answer) == {"evaluations"}
    assert [one["decision"] for one in answer["evaluations"]] == [True, False, False, True]


async def test_a_question_that_is_not_whole_is_denied_by_itself(alice: Caller, project: str) -> None:
    asked = question("user:alice", "read", "project", project)
    for left_out, words in (("subject", "subject, with its type and id,"), ("action", "action, with its name,")):
        default = {key: value for key, value in asked.items() if key != left_out}
        answer = await ask(alice, EVALUATIONS, {**default, "evaluations": [asked, {}, {left_out: {"properties": {}}}, asked]})
        fault = {"decision": False, "context": {"error": {"status": 400, "message": f"{words} is missing"}}}
        assert answer["evaluations"] == [{"decision": True}, fault, fault, {"decision": True}]


@pytest.mark.parametrize(
    ("semantic", "asked", "answered"),
    [
        ("execute_all", "read delete read", [True, False, True]),
        ("deny_on_first_deny", "read delete read", [True, False]),
        ("deny_on_first_deny", "read read", [True, True]),
        ("deny_on_first_deny", "FLY read", [False]),
        ("permit_on_first_permit", "delete read read", [False, True]),
        ("permit_on_first_permit", "delete FLY", [False, False]),
    ],
)
async def test_the_semantic_says_when_to_stop(
    alice: Caller, bob: Caller, project: str, semantic: str, asked: str, answered: list[bool]
) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_VIEWER")
    evaluations = [{"action": {"name": name}} for name in asked.split()]
    whole = {**question("user:bob", "read", "project", project), "evaluations": evaluations}
    answer = await ask(bob, EVALUATIONS, {**whole, "options": {"evaluations_semantic": semantic}})
    assert [one["decision"] for one in answer["evaluations"]] == answered


async def test_two_hundred_evaluations_cost_one_statement_for_each_type(service: Service, alice: Caller, org: str, project: str) -> None:
    asked = question("user:alice", "read", "project", project)
    evaluations = [{"resource": {"type": "project", "id": str(uuid4())}} for _ in range(198)]
    evaluations += [{}, {"resource": {"type": "organization", "id": org}}]
    with statements_of_requests(service.runtime.context.database) as statements:
        answer = await ask(alice, EVALUATIONS, {**asked, "evaluations": evaluations})
    assert [one["decision"] for one in answer["evaluations"]] == [*[False] * 198, True, True]
    assert len(statements) == 2, statements
    refused = await alice.post(EVALUATIONS, {**asked, "evaluations": [*evaluations, {}]}, 422)
    assert read_problem(refused, 422, "invalid")["errors"][0]["pointer"] == "/evaluations"


async def test_what_is_invisible_is_answered_like_what_is_absent(
    alice: Caller, bob: Caller, mallory: Caller, org: str, project: str
) -> None:
    document = (await alice.new_document(project))["id"]
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_EDITOR")
    await mallory.new_organization()
    same = {"headers": {"X-Request-ID": "same"}}
    for caller, subject in ((mallory, "user:mallory"), (mallory, "user:alice"), (bob, "user:alice"), (bob, "user:carol")):
        for kind, where in (("organization", org), ("project", project), ("document", document)):
            is_hidden = caller is mallory or kind == "organization"
            for path in ALL if is_hidden else (EVALUATION, EVALUATIONS, ACTION):
                answers = [
                    (answer.content, sorted(answer.headers.multi_items()))
                    for there in (where, str(uuid4()))
                    for answer in [await caller.post(path, question(subject, "METADATA_READ", kind, there), 200, **same)]
                ]
                assert answers[0] == answers[1], (path, kind)
    assert await ask(bob, EVALUATION, question("user:alice", "read", "project", project)) == {"decision": False, "context": ABSENT}


async def test_who_does_not_manage_members_finds_no_subjects(
    service: Service, alice: Caller, bob: Caller, mallory: Caller, project: str
) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_EDITOR")
    asked = question("user:", "read", "project", project)
    for caller in (bob, mallory):
        assert (await ask(caller, SUBJECT, asked))["context"] == ABSENT
    assert {event["actor"]["id"] for event in await denied_events_of(service, alice)} == {"bob", "mallory"}


async def test_anonymous_callers_learn_nothing(service: Service, alice: Caller, project: str) -> None:
    await alice.grant("PROJECT", project, "service:anonymous", "PROJECT_OWNER")
    for path in ALL:
        for name in ("read", "FLY"):
            refused = await service.as_(None).post(path, question("service:anonymous", name, "project", project), 401)
            assert refused.headers["www-authenticate"] == "Bearer"
            read_problem(refused, 401)


async def test_a_narrowed_key_is_answered_as_it_is_served(service: Service, alice: Caller, org: str, project: str) -> None:
    bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_OWNER", actions=["PROJECT_READ"])
    itself = f"api_key:{key['id']}"
    for name, expected in (("read", True), ("update", False)):
        for caller in (alice, bearer):
            assert (await ask(caller, EVALUATION, question(itself, name, "project", project)))["decision"] is expected
    found = await ask(bearer, ACTION, question(itself, "", "project", project))
    assert found["results"] == [{"name": "PROJECT_READ"}]
    assert (await ask(bearer, EVALUATION, question("user:alice", "read", "project", project)))["context"] == ABSENT
    assert (await ask(bearer, SUBJECT, question("user:", "read", "project", project)))["context"] == ABSENT
    assert (await ask(bearer, RESOURCE, question(itself, "update", "project", "")))["results"] == []
