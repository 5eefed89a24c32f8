"""The README's examples of issuers can be configured, and its resolver decides who is calling."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest

from tests.conftest import Caller, make_settings
from tests.readme.test_quick_start import README
from tests.support.answers import events_of, read_problem
from tests.support.cli import run_saasbase
from tests.support.server import run_server
from tests.support.wire import Wire


def blocks(language: str) -> list[str]:
    section = README.read_text().partition("\n## Who is calling\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


def test_the_issuers_can_be_configured(tmp_path: Path) -> None:
    (examples,) = blocks("json")
    issuers = json.loads(examples)
    assert len(issuers) == 3
    configured = make_settings("sqlite:///unused.db", tmp_path, jwt={"issuers": issuers}).jwt.issuers
    assert [issuer.issuer for issuer in configured] == [issuer["issuer"] for issuer in issuers]


@pytest.fixture
def command(tmp_path: Path) -> str:
    """What the README says to start, with its module in place."""
    (example,) = blocks("python")
    (start,) = [block for block in blocks("console") if "RESOLVER" in block]
    (name,) = re.findall(r'^"""(\w+)\.py: ', example)
    (tmp_path / f"{name}.py").write_text(example)
    (value,) = re.findall(r"SAASBASE_ACTOR__RESOLVER=(\S+)", start)
    assert value.startswith(f"{name}:")
    return str(value)


@pytest.mark.anyio
async def test_the_resolver_decides_who_is_calling(database_url: str, tmp_path: Path, command: str) -> None:
    settings = {"SAASBASE_ACTOR__TRUSTED_PROXIES": "0.0.0.0/0", "SAASBASE_ACTOR__RESOLVER": command, "SAASBASE_WEB__HEADER_SECONDS": "1"}
    server = await asyncio.to_thread((running := run_server(database_url, tmp_path, workers=2, **settings)).__enter__)
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            alice = Caller(client, {"X-Session": "of-alice"})
            organization = await alice.new_organization()
            assert organization["created_by_subject"] == "user:alice"
            assert {event["auth_method"] for event in await events_of(alice)} == {"session"}
            for headers in ({}, {"X-Session": "x"}, {"X-SaaSBase-Actor": "user:alice"}, {"Authorization": "Bearer of-alice"}):
                refused = await Caller(client, headers).get(f"/organizations/{organization['id']}", 401)
                read_problem(refused, 401, "unauthenticated")
        with Wire(server.url) as slow:
            slow.socket.sendall(b"GET /livez")
            assert slow.read_answer().status == 408
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
    assert f"Who is calling:  {command} says it" in server.log


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:X", "No module named 'nowhere'"),
        ("string:Nothing", "string:Nothing makes nothing that has a method resolve"),
        ("string:Formatter", "string:Formatter makes nothing that has a method resolve"),
        ("string:digits", "string:digits makes nothing that has a method resolve"),
    ],
)
def test_a_resolver_that_is_none_stops_the_start_with_one_line(tmp_path: Path, name: str, said: str) -> None:
    for command in (("serve", "--workers", "2"), ("config", "check"), ("doctor",)):
        ended = run_saasbase(tmp_path, *command, SAASBASE_ACTOR__RESOLVER=name)
        assert (ended.status, ended.err) == (1, f"saasbase: SAASBASE_ACTOR__RESOLVER: {said}\n")


def test_the_demo_needs_no_resolver(tmp_path: Path, command: str) -> None:
    ended = run_saasbase(tmp_path, "demo", SAASBASE_ACTOR__RESOLVER=command)
    assert (ended.status, ended.out.startswith("sbk_") or "sbk_" in ended.out) == (0, True), ended
