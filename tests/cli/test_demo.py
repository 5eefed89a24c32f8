"""The demo world: everything in it can be seen with the key it prints."""

import socket
from pathlib import Path

import httpx
import pytest

from tests.cli.test_keys import Operator, get
from tests.support.cli import run_saasbase
from tests.support.database import environment_of
from tests.support.server import Server


def test_the_demo_has_people_documents_calls_and_a_trace(server: Server, database_url: str, tmp_path: Path) -> None:
    operator = Operator(tmp_path, database_url)
    token = operator.token("demo")
    home = get(server, token, "/organizations/by-slug/demo")
    projects = {project["name"]: project["id"] for project in get(server, token, "/projects")["items"]}
    assert projects.keys() == {"Website", "Customer support"}
    (handbook,) = get(server, token, f"/projects/{projects['Website']}/documents")
    assert (handbook["name"], handbook["current_version_number"], handbook["created_by_subject"]) == ("Handbook", 2, "user:bob")
    (call,) = get(server, token, f"/api-calls?project_id={projects['Customer support']}")["items"]
    assert call["request_payload"] == {"order": "A-17"}
    runs = get(server, token, f"/executions/by-project/{projects['Customer support']}")
    assert sorted((run["operation"], run["status"]) for run in runs) == [
        ("answer_ticket", "COMPLETED"),
        ("chat", "COMPLETED"),
        ("look_up_order", "FAILED"),
    ]
    assert [group["group_id"] for group in get(server, token, f"/organizations/{home['id']}/groups")["items"]] == ["editors"]
    assert "there is an organization 'demo' already" in operator.refused("demo")
    named = httpx.get(f"{server.url}/api/organizations/{home['id']}", headers={"X-SaaSBase-Actor": "user:mallory"}, timeout=60)
    assert named.status_code == 404


REFUSALS = {
    "SAASBASE_ORGANIZATIONS__CREATION": ("none", "user:alice may not create organizations."),
    "SAASBASE_STORAGE__MAX_UPLOAD_BYTES": ("3", "is answered 413: "),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_demo_that_is_refused_leaves_nothing(name: str, database_url: str, tmp_path: Path) -> None:
    operator, (value, words) = Operator(tmp_path, database_url), REFUSALS[name]
    for _ in range(2):
        assert words in operator.refused("demo", **{name: value})
    operator.token("demo")


def test_the_demo_leaves_the_port_for_operators_to_the_service(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = {"SAASBASE_WEB__OPS_PORT": str(taken.getsockname()[1])}
        ended = run_saasbase(tmp_path, "demo", **environment_of(f"sqlite:///{tmp_path}/test.db"), **settings)
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize(
    "settings",
    [
        {"SAASBASE_WEB__ENABLED": "false"},
        {"SAASBASE_LIMITS__ACTOR_PER_MINUTE": "3"},
    ],
)
def test_what_is_for_other_callers_does_not_hold_for_the_demo(settings: dict[str, str], tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "demo", **environment_of(f"sqlite:///{tmp_path}/test.db"), **settings)
    assert (ended.status, ended.err) == (0, "")
