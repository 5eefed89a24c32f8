"""The first key and every other one from the command line; the service believes each of them, and the audit trail has them all."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cli import Result, run_saasbase
from tests.support.database import environment_of
from tests.support.server import Server

TOKEN = re.compile(r"(sbk_[0-9a-z]{12})\.[0-9A-Za-z]{49}\n")


class Operator:
    """Who sits at the machine of the service."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._settings = environment_of(database_url)

    def __call__(self, *arguments: str, **settings: str) -> Result:
        return run_saasbase(self._folder, *arguments, **self._settings, **settings)

    def token(self, *arguments: str) -> str:
        ended = self(*arguments)
        assert (ended.status, ended.err) == (0, ""), ended
        assert TOKEN.fullmatch(ended.out)
        return ended.out.strip()

    def refused(self, *arguments: str, **settings: str) -> str:
        ended = self(*arguments, **settings)
        assert (ended.status, ended.out) == (1, "")
        assert re.fullmatch(r"saasbase: [^\n]+\n", ended.err), ended.err
        return ended.err


@pytest.fixture
def operator(tmp_path: Path, database_url: str) -> Operator:
    return Operator(tmp_path, database_url)


@pytest.fixture
def owner(operator: Operator) -> str:
    """The token that bootstrap prints."""
    return operator.token("bootstrap", "--organization", "acme", "--owner", "user:alice")


def get(server: Server, token: str, path: str, expect: int = 200) -> Any:
    answer = httpx.get(f"{server.url}/api{path}", headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.status_code == expect, answer.text
    return answer.json()


def test_bootstrap_makes_an_organization_its_owner_and_a_key_that_works(server: Server, owner: str) -> None:
    (home,) = get(server, owner, "/organizations")["items"]
    assert (home["slug"], home["created_by_subject"]) == ("acme", "user:alice")
    members = get(server, owner, f"/memberships?resource_type=ORGANIZATION&resource_id={home['id']}")
    assert {(member["actor"]["type"], member["role"]) for member in members} == {("USER", "ORG_OWNER"), ("API_KEY", "ORG_OWNER")}
    events = get(server, owner, f"/audit-events?organization_id={home['id']}")["items"]
    assert {(event["action"], event["actor"]["id"], event["auth_method"]) for event in events} == {
        (action, "alice", "system") for action in ("ORGANIZATION_CREATED", "MEMBERSHIP_GRANTED", "API_KEY_CREATED")
    }
    assert owner not in server.log


def test_bootstrap_again_makes_nothing(operator: Operator, server: Server, owner: str) -> None:
    assert "there is an organization 'acme' already" in operator.refused("bootstrap", "--organization", "acme", "--owner", "user:bob")
    home = get(server, owner, "/organizations/by-slug/acme")
    assert len(get(server, owner, f"/memberships?resource_type=ORGANIZATION&resource_id={home['id']}")) == 2


@pytest.mark.parametrize(
    ("organization", "owner", "name", "words"),
    [
        ("Not A Slug", "user:alice", "key", "slug: "),
        ("acme", "robot:alice", "key", "--owner: the actor's type is none of"),
        ("acme", "group:devs", "key", "group:devs may not create organizations"),
        ("acme", "user:alice", " ", "name: "),
    ],
)
def test_bootstrap_with_something_wrong_leaves_nothing(
    operator: Operator, server: Server, organization: str, owner: str, name: str, words: str
) -> None:
    assert words in operator.refused("bootstrap", "--organization", organization, "--owner", owner, "--name", name)
    token = operator.token("bootstrap", "--organization", "acme", "--owner", "user:alice")
    assert len(get(server, token, "/organizations")["items"]) == 1


def test_a_key_is_made_rotated_and_revoked(operator: Operator, server: Server, owner: str) -> None:
    first = operator.token("keys", "create", "--organization", "acme", "--role", "ORG_MEMBER", "--name", "ci", "--days", "3")
    me = get(server, first, "/me")
    second = operator.token("keys", "rotate", me["actor"]["id"], "--overlap-seconds", "3600")
    assert get(server, second, "/me")["actor"] == get(server, first, "/me")["actor"] == me["actor"]
    third = operator.token("keys", "rotate", second.partition(".")[0], "--overlap-seconds", "0")
    get(server, second, "/me", 401)
    ended = operator("keys", "revoke", third)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"{me['actor']['id']} is revoked since 20")
    assert operator("keys", "revoke", third) == ended, "again it changes nothing"
    get(server, third, "/me", 401)
    home = get(server, owner, "/organizations/by-slug/acme")
    asked = f"organization_id={home['id']}&actor_type=SERVICE&actor_id=saasbase&sort=occurred_at&direction=asc"
    events = get(server, owner, f"/audit-events?{asked}")["items"]
    assert [event["action"] for event in events] == [
        "API_KEY_CREATED",
        "MEMBERSHIP_GRANTED",
        "API_KEY_ROTATED",
        "API_KEY_ROTATED",
        "API_KEY_REVOKED",
        "MEMBERSHIP_REVOKED",
    ]


def test_a_key_can_be_for_one_project_and_for_acting_for_others(operator: Operator, server: Server, owner: str) -> None:
    home = get(server, owner, "/organizations/by-slug/acme")
    project = httpx.post(
        f"{server.url}/api/projects",
        json={"organization_id": home["id"], "name": "p"},
        headers={"Authorization": f"Bearer {owner}"},
        timeout=60,
    ).json()
    options = ("--organization", "acme", "--role", "PROJECT_EDITOR", "--name", "agent", "--project", project["id"])
    token = operator.token("keys", "create", *options, "--acts-for-others")
    assert [seen["id"] for seen in get(server, token, "/projects")["items"]] == [project["id"]]
    key = next(key for key in get(server, owner, f"/api-keys?organization_id={home['id']}") if key["name"] == "agent")
    assert (key["scope"]["id"], key["may_act_for_others"], key["expires_at"]) == (project["id"], True, None)
    operator.token("bootstrap", "--organization", "other", "--owner", "user:alice")
    elsewhere = ("--organization", "other", *options[2:])
    assert "the organization has no project" in operator.refused("keys", "create", *elsewhere)


def test_keys_are_listed_without_their_secrets(operator: Operator, owner: str) -> None:
    operator.token("bootstrap", "--organization", "other", "--owner", "user:alice")
    made = operator.token("keys", "create", "--organization", "acme", "--role", "ORG_MEMBER", "--name", "ci of acme", "--days", "3")
    assert operator("keys", "revoke", owner).status == 0
    ended = operator("keys", "list", "--organization", "acme")
    assert (ended.status, ended.err) == (0, "")
    head, *lines = [re.split(r"  +", line) for line in ended.out.splitlines()]
    assert head == ["id", "prefix", "scope", "role", "created", "last used", "ends", "name"]
    told = [(line[1], line[3], line[5], line[6][:9], line[7]) for line in lines]
    assert told[0] == (owner.partition(".")[0].removeprefix("sbk_"), "ORG_OWNER", "never", "revoked 2", "bootstrap")
    assert (told[1][0], told[1][1], told[1][4]) == (made.partition(".")[0].removeprefix("sbk_"), "ORG_MEMBER", "ci of acme")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\dZ", lines[1][6])
    assert len(lines) == 2
    for token in (owner, made):
        assert token.partition(".")[2] not in ended.out


@pytest.mark.usefixtures("owner")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("keys", "create", "--organization", "nobody", "--role", "ORG_MEMBER", "--name", "k"), "there is no organization 'nobody'"),
        (("keys", "list", "--organization", "nobody"), "there is no organization 'nobody'"),
        (("keys", "rotate", "sbk_000000000000"), "there is no such key"),
        (("keys", "revoke", "01920000-0000-7000-8000-000000000000"), "there is no such key"),
        (("keys", "rotate", "sbk_000000000000", "--overlap-seconds", "99999999"), "overlap_seconds: "),
    ],
)
def test_what_is_not_there_is_told_in_one_line(operator: Operator, arguments: tuple[str, ...], words: str) -> None:
    assert words in operator.refused(*arguments)
