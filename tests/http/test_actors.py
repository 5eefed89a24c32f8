"""Who is calling: the header under its trust rule, the anonymous fallback, and nothing that falls through."""

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.conftest import Service, make_settings, open_service
from tests.support.answers import count_rows, events_of, read_problem, run_sql

pytestmark = pytest.mark.anyio

HEADER = "X-SaaSBase-Actor"


async def create(service: Service, *headers: tuple[str, str | bytes]) -> httpx.Response:
    """Create an organization with exactly these headers."""
    number = await count_rows(service, "organizations")
    raw = [(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in headers]
    return await service.client.post("/api/organizations", json={"slug": f"org-{number}"}, headers=raw)


async def creator_of(service: Service, *headers: tuple[str, str | bytes]) -> str:
    """Whom the service takes the caller for."""
    response = await create(service, *headers)
    assert response.status_code == 201, response.text
    return str(response.json()["created_by_subject"])


async def test_the_header_names_the_actor(service: Service) -> None:
    expected = {
        "user:alice": "user:alice",
        "USER:alice": "user:alice",
        "User: alice ": "user:alice",
        " user:alice": "user:alice",
        "alice": "user:alice",
        "user:a:b:c": "user:a:b:c",
        "service:billing": "service:billing",
        "agent:t": "agent:t",
        "user:Alice": "user:Alice",
        "user:alice@example.org": "user:alice@example.org",
        "user:" + "x" * 256: "user:" + "x" * 256,
        "user:Zoë 日本": "user:Zoë 日本",
    }
    for value, subject in expected.items():
        assert await creator_of(service, (HEADER, value)) == subject, value
    assert await creator_of(service, (HEADER.lower(), "user:x")) == "user:x"
    (stored,) = await run_sql(service, "SELECT count(*) FROM memberships WHERE actor_id = 'Zoë 日本' AND actor_type = 'USER'")
    assert stored[0] == 1


async def test_ids_are_compared_exactly(service: Service) -> None:
    organization = (await create(service, (HEADER, "user:alice"))).json()
    path = f"/organizations/{organization['id']}"
    await service.as_("USER: alice").get(path)
    for other in ("user:Alice", "user:alice.", "service:alice", "agent:alice", "group:alice", "user:user:alice"):
        read_problem(await service.as_(other).get(path, 404), 404, "not_found")


async def test_a_group_that_the_header_names_is_the_group_of_that_id_in_every_organization(service: Service) -> None:
    organizations = []
    for owner in ("user:alice", "user:bob"):
        caller = service.as_(owner)
        organization = (await caller.new_organization())["id"]
        await caller.post(f"/organizations/{organization}/groups", {"group_id": "devs"})
        await caller.grant("ORGANIZATION", organization, "group:devs", "ORG_MEMBER")
        organizations.append(organization)
    member = {"member_type": "USER", "member_id": "carol"}
    await service.as_("user:alice").post(f"/organizations/{organizations[0]}/groups/devs/members", member)
    for organization in organizations:
        await service.as_("group:devs").get(f"/organizations/{organization}")
    await service.as_("user:carol").get(f"/organizations/{organizations[0]}")
    await service.as_("user:carol").get(f"/organizations/{organizations[1]}", 404)


async def test_a_header_that_names_nobody_is_refused(service: Service) -> None:
    for value in (
        "robot:r2",
        "api-key:x",
        "user:",
        "user:   ",
        ":alice",
        ":",
        "user:" + "x" * 257,
        "x" * 3000,
        "user:a\x01b",
        "user:a\x7f",
    ):
        read_problem(await create(service, (HEADER, value)), 400, "invalid_actor")
    for raw in (b"user:\xff\xfe", b"user:Zo\xeb", "user:a\u2028b".encode(), "user:a\u0085b".encode(), b"user:\xed\xa0\x80"):
        read_problem(await create(service, (HEADER, raw)), 400, "invalid_actor")
    assert await count_rows(service, "organizations") == 0


async def test_two_headers_are_ambiguous(service: Service) -> None:
    for second in ("user:bob", "user:alice", ""):
        read_problem(await create(service, (HEADER, "user:alice"), (HEADER.upper(), second)), 400, "ambiguous_actor")


async def test_a_blank_header_is_as_good_as_none(service: Service) -> None:
    for blank in ("", "  "):
        read_problem(await create(service, (HEADER, blank)), 401, "unauthenticated")


async def test_an_api_key_is_no_name_one_can_call_oneself(service: Service) -> None:
    for value in ("api_key:x", "API_KEY:01890000-0000-7000-8000-000000000000", "Api_Key: x"):
        refused = await create(service, (HEADER, value))
        read_problem(refused, 401, "unauthenticated")
        assert refused.headers["www-authenticate"] == "Bearer"


async def test_a_credential_that_is_not_valid_never_falls_through(service: Service) -> None:
    organization = (await create(service, (HEADER, "user:alice"))).json()
    shown = ("Bearer sbk_abc.def", "bearer x", "Bearer", "Bearer ", "Basic YTpi", "Digest x", "x", "", " ", "Negotiate a, Bearer b")
    for value in shown:
        headers = [("Authorization", value), (HEADER, "user:alice")]
        for method, path in (("GET", f"/organizations/{organization['id']}"), ("GET", "/organizations"), ("POST", "/organizations")):
            body = {"slug": "x"} if method == "POST" else None
            refused = await service.client.request(method, f"/api{path}", headers=headers, json=body)
            read_problem(refused, 401, "unauthenticated")
            assert refused.headers["www-authenticate"] == "Bearer"
            assert not value.strip() or value not in refused.text
    assert await count_rows(service, "organizations") == 1


async def test_an_anonymous_caller_is_an_ordinary_actor_without_grants(service: Service) -> None:
    alice, nobody = service.as_("user:alice"), service.as_(None)
    organization = await alice.new_organization()
    path = f"/organizations/{organization['id']}"
    for refused in (await nobody.get(path, 401), await nobody.get("/organizations", 401), await create(service)):
        read_problem(refused, 401, "unauthenticated")
        assert refused.headers["www-authenticate"] == "Bearer"
    await alice.grant("ORGANIZATION", organization["id"], "service:anonymous", "ORG_MEMBER")
    assert (await nobody.get(path)).json() == organization
    assert (await nobody.get("/organizations")).json()["items"] == [organization]
    read_problem(await nobody.patch(path, {"name": "x"}, 401), 401, "unauthenticated")
    read_problem(await create(service), 401, "unauthenticated")
    project = (await nobody.request("POST", "/projects", 401, json={"organization_id": organization["id"], "name": "x"})).json()
    assert project["code"] == "unauthenticated"


async def test_without_an_anonymous_actor_every_caller_has_to_say_who_he_is(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path, actor={"anonymous": ""})) as service:
        for path in ("/organizations", "/organizations/all", "/organizations/by-slug/x", "/projects", "/audit-events"):
            refused = await service.as_(None).get(path, 401)
            read_problem(refused, 401, "unauthenticated")
            assert refused.headers["www-authenticate"] == "Bearer"
        await service.as_("user:alice").new_organization()


async def test_the_anonymous_actor_and_the_header_can_be_named(database_url: str, tmp_path: Path) -> None:
    async with open_service(
        make_settings(database_url, tmp_path, actor={"anonymous": "agent:guest", "header": "X-Remote-User"})
    ) as service:
        assert await creator_of(service, ("x-remote-user", "user:alice"), (HEADER, "user:mallory")) == "user:alice"
        read_problem(await create(service, (HEADER, "user:alice")), 401, "unauthenticated")
        (organization,) = await run_sql(service, "SELECT id FROM organizations")
        assert organization
        alice = {"X-Remote-User": "user:alice"}
        mine = (await service.client.get("/api/organizations", headers=alice)).json()["items"][0]
        grant = {
            "resource_type": "ORGANIZATION",
            "resource_id": mine["id"],
            "actor_type": "AGENT",
            "actor_id": "guest",
            "role": "ORG_MEMBER",
        }
        assert (await service.client.post("/api/memberships", json=grant, headers=alice)).status_code == 201
        assert (await service.client.get("/api/organizations")).json()["items"] == [mine]


TRUSTED: list[tuple[str, str, bool]] = [
    ("10.0.0.0/8", "10.200.3.4", True),
    ("10.0.0.0/8", "11.0.0.1", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("127.0.0.1/32, fd00::/8", "fd12::1", True),
    ("127.0.0.1/32, fd00::/8", "fe80::1", False),
    ("127.0.0.1/32", "127.0.0.2", False),
    ("0.0.0.0/0", "::1", False),
    ("127.0.0.0/8", "::ffff:127.0.0.1", True),
    ("::ffff:10.0.0.0/104", "10.1.2.3", True),
    ("::ffff:10.0.0.0/104", "::ffff:11.0.0.1", False),
    ("::/0", "::ffff:127.0.0.1", False),
    ("127.0.0.1/32", "unix", False),
    ("", "127.0.0.1", False),
]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # decided before any database is asked
async def test_the_header_is_believed_from_trusted_peers_only(database_url: str, tmp_path: Path) -> None:
    for networks, peer, is_trusted in TRUSTED:
        settings = make_settings(database_url, tmp_path, actor={"trusted_proxies": networks})
        async with open_service(settings, peer=peer) as service:
            for forwarded in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}):
                answer = await create(service, (HEADER, "user:alice"), *forwarded.items())
                assert answer.status_code == (201 if is_trusted else 401), (networks, peer, forwarded)


async def test_a_header_that_is_not_believed_is_not_even_read(service: Service, settings: Settings) -> None:
    async with open_service(settings, peer="203.0.113.7") as outside:
        for value in ("robot:x", "api_key:x", "user:" + "x" * 999):
            read_problem(await create(outside, (HEADER, value), (HEADER, "user:b")), 401, "unauthenticated")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_ignored_header_is_told_once(database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_service(make_settings(database_url, tmp_path), peer="203.0.113.7") as service:
        read_problem(await create(service), 401)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        for _ in range(3):
            read_problem(await create(service, (HEADER, "user:alice")), 401, "unauthenticated")
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "SAASBASE_ACTOR__TRUSTED_PROXIES" in warning.getMessage()
    assert "203.0.113.7" in warning.getMessage()
    assert "alice" not in caplog.text


async def test_a_trusted_peer_also_shows_the_secret_when_there_is_one(database_url: str, tmp_path: Path) -> None:
    settings = make_settings(database_url, tmp_path, actor={"proxy_secret": "correct horse"})
    name = "X-SaaSBase-Proxy-Secret"
    async with open_service(settings) as service:
        wrong: list[list[tuple[str, str | bytes]]] = [
            [],
            [(name, "")],
            [(name, "wrong")],
            [(name, "correct hors")],
            [(name, "Correct horse")],
            [(name, b"\xff")],
            [(name, "correct horse"), (name, "correct horse")],
        ]
        for shown in wrong:
            read_problem(await create(service, (HEADER, "user:alice"), *shown), 401, "unauthenticated")
        assert await creator_of(service, (HEADER, "user:alice"), (name, "correct horse")) == "user:alice"
    async with open_service(settings, peer="203.0.113.7") as outside:
        read_problem(await create(outside, (HEADER, "user:alice"), (name, "correct horse")), 401, "unauthenticated")


FORWARDED: list[tuple[str | None, str]] = [
    (None, "127.0.0.1"),
    ("", "127.0.0.1"),
    ("203.0.113.9", "203.0.113.9"),
    ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
    ("6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
    ("203.0.113.9,10.0.0.2 , 10.0.0.3", "203.0.113.9"),
    ("10.0.0.2, 10.0.0.3", "10.0.0.2"),
    ("203.0.113.9, unknown", "127.0.0.1"),
    ("203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
    ("203.0.113.9:1234", "127.0.0.1"),
    ("2001:DB8::1", "2001:db8::1"),
    ("::ffff:203.0.113.9", "203.0.113.9"),
    ("203.0.113.9, ::FFFF:10.0.0.2", "203.0.113.9"),
    ("fe80::1%" + "z" * 200, "fe80::1"),
    ("<script>", "127.0.0.1"),
    (", ,203.0.113.9,,", "203.0.113.9"),
]


async def test_forwarded_addresses_are_read_from_right_to_left_through_trusted_proxies(database_url: str, tmp_path: Path) -> None:
    settings = make_settings(database_url, tmp_path, actor={"trusted_proxies": "127.0.0.1/32, 10.0.0.0/8"})
    async with open_service(settings) as service:
        expected: list[Any] = []
        for value, address in FORWARDED:
            await creator_of(service, (HEADER, "user:alice"), *((("X-Forwarded-For", value),) if value is not None else ()))
            expected.append(address)
        await creator_of(service, (HEADER, "user:alice"), ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.9"))
        events = await events_of(service.as_("user:alice"), action="ORGANIZATION_CREATED")
        assert [event["ip"] for event in events] == [*expected, "203.0.113.9"]


async def test_a_forwarded_address_from_an_untrusted_peer_is_ignored(settings: Settings) -> None:
    async with open_service(settings) as service:
        organization = await service.as_("user:alice").new_organization()
        async with open_service(settings, peer="203.0.113.7") as outside:
            refused = await outside.client.get(f"/api/organizations/{organization['id']}", headers={"X-Forwarded-For": "127.0.0.1"})
            read_problem(refused, 401, "unauthenticated")
        (denied,) = await events_of(service.as_("user:alice"), outcome="DENIED")
        assert (denied["ip"], denied["actor"]["id"]) == ("203.0.113.7", "anonymous")
