"""What an execution may name as its target: what whoever starts it may read, so that no start tells what is there."""

from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import count_rows, pointers_of
from tests.support.keys import key_of
from tests.support.record import new_call, new_place
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

READS = {"DOCUMENT": "DOCUMENT_READ", "API_CALL": "API_CALL_READ"}


async def make_things(caller: Caller, project: Any) -> dict[str, str]:
    """What a project has, by type."""
    return {"DOCUMENT": (await caller.new_document(project["id"]))["id"], "API_CALL": (await new_call(caller, project["id"]))["id"]}


async def start(caller: Caller, project: Any, expect: int, **target: str) -> Any:
    place = {"organization_id": project["organization_id"], "project_id": project["id"]}
    return await caller.post("/executions", {**place, "operation": "op", **target}, expect, headers={"X-Request-ID": "same"})


async def start_in_batch(caller: Caller, project: Any, expect: int, **target: str) -> Any:
    items = {"items": [{"op": "start", "operation": "op", **target}]}
    (result,) = (await caller.post(f"/projects/{project['id']}/executions/batch", items, 200)).json()["results"]
    assert result["status"] == expect
    return result


async def test_a_target_that_may_not_be_read_is_refused_as_if_it_were_absent(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    things = await make_things(alice, project)
    for type_, action in READS.items():
        others = [other for other in READS.values() if other != action]
        blind, _ = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_EDITOR", actions=["EXECUTION_CREATE", *others])
        sees, _ = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_EDITOR", actions=["EXECUTION_CREATE", action])
        there, absent = ({"target_type": type_, "target_id": id_} for id_ in (things[type_], str(uuid4())))
        rows = await count_rows(service, "executions")
        hidden = await start(blind, project, 422, **there)
        assert pointers_of(hidden) == ["/target_id"]
        assert hidden.json() == (await start(blind, project, 422, **absent)).json() == (await start(sees, project, 422, **absent)).json()
        assert await start_in_batch(blind, project, 422, **there) == await start_in_batch(blind, project, 422, **absent)
        assert await count_rows(service, "executions") == rows
        assert (await start(sees, project, 201, **there)).json()["target"] == {"type": type_, "id": things[type_]}
        await start_in_batch(sees, project, 201, **there)


async def test_the_place_that_a_start_names_anyway_may_be_its_target(service: Service, alice: Caller) -> None:
    organization, project = await new_place(alice)
    blind, _ = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_EDITOR", actions=["EXECUTION_CREATE"])
    for type_, place in (("PROJECT", project), ("ORGANIZATION", organization)):
        await start(blind, project, 201, target_type=type_, target_id=place["id"])


async def test_who_acts_for_another_names_what_both_may_read(service: Service, alice: Caller) -> None:
    organization, project = await new_place(alice)
    await alice.grant("ORGANIZATION", organization["id"], "agent:helper", "ORG_ADMIN")
    agent = service.as_("agent:helper")
    agent.headers["X-SaaSBase-On-Behalf-Of"] = "user:bob"
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_EDITOR")
    for type_, id_ in (await make_things(alice, project)).items():
        made = (await start(agent, project, 201, target_type=type_, target_id=id_)).json()
        assert (made["target"]["id"], made["on_behalf_of"]) == (id_, "user:bob")


async def test_a_target_costs_one_statement(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    things = await make_things(alice, project)
    numbers = []
    for target in ({}, *({"target_type": type_, "target_id": id_} for type_, id_ in things.items())):
        await start(alice, project, 201, **target)
        with statements_of_requests(service.runtime.context.database) as sent:
            await start(alice, project, 201, **target)
        numbers.append(len([statement for statement in sent if statement.lstrip().startswith(("SELECT", "WITH"))]))
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 1]
