"""The README's examples of issuers can be configured, and its resolver decides who is calling."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.conftest import Caller, make_settings
from tests.readme.test_quick_start import README
from tests.support.answers import events_of, read_problem
from tests.support.database import environment_of


def blocks(language: str) -> list[str]:
    section = README.read_text().partition("\n## Who is calling\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


def test_the_issuers_can_be_configured(tmp_path: Path) -> None:
    (examples,) = blocks("json")
    issuers = json.loads(examples)
    assert len(issuers) == 3
    configured = make_settings("sqlite:///unused.db", tmp_path, jwt={"issuers": issuers}).jwt.issuers
    assert [issuer.issuer for issuer in configured] == [issuer["issuer"] for issuer in issuers]


@pytest.mark.anyio
async def test_the_resolver_decides_who_is_calling(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_of(database_url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SAASBASE_STORAGE__LOCAL__BASE_PATH", str(tmp_path / "documents"))
    monkeypatch.setenv("SAASBASE_ACTOR__TRUSTED_PROXIES", "0.0.0.0/0")
    module: dict[str, Any] = {}
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), module)
    app: FastAPI = module["app"]
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            alice = Caller(client, {"X-Session": "of-alice"})
            organization = await alice.new_organization()
            assert organization["created_by_subject"] == "user:alice"
            assert {event["auth_method"] for event in await events_of(alice)} == {"session"}
            for headers in ({}, {"X-Session": "x"}, {"X-SaaSBase-Actor": "user:alice"}, {"Authorization": "Bearer of-alice"}):
                refused = await Caller(client, headers).get(f"/organizations/{organization['id']}", 401)
                read_problem(refused, 401, "unauthenticated")
