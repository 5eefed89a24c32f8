"""A store that was tampered with, made anew or left behind is brought back to what the database holds; the commands that do it."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from app.authz.model import make_model
from app.authz.openfga_client import OpenFGAClient
from app.authz.reconcile import Reconciliation, reconcile
from app.authz.tuples import RelationshipTuple, TupleKey
from tests.conftest import Caller, Service
from tests.openfga.copy import assert_copy_is_true, client_of, outbox_of, send_all, stop_sender, stored_tuples
from tests.resources.groups.test_api import member, new_group
from tests.resources.memberships.test_api import revoke
from tests.support.cli import Result, run_saasbase
from tests.support.database import environment_of
from tests.support.keys import after
from tests.support.openfga import OpenFGAServer
from tests.support.postgres import free_port

pytestmark = pytest.mark.anyio


async def run(service: Service, *, is_dry_run: bool = False) -> Reconciliation:
    return await reconcile(service.runtime.context.database, client_of(service), outbox_of(service), is_dry_run=is_dry_run)


@pytest.fixture
async def org(service: Service, alice: Caller) -> str:
    """An organization with grants and groups, all of them sent."""
    made = str((await alice.new_organization())["id"])
    project = await alice.new_project(made)
    group = await new_group(alice, made, "devs", "user:bob")
    await alice.post(f"{group}/members", member("user:carol", expires_at=after(days=1)))
    await alice.grant("PROJECT", project["id"], "group:devs", "PROJECT_EDITOR")
    await alice.grant("ORGANIZATION", made, "user:dave", "ORG_MEMBER", expires_at=after(days=2))
    await send_all(service)
    return made


async def test_nothing_differs_when_everything_was_sent(service: Service, org: str) -> None:
    for is_dry_run in (True, False):
        assert await run(service, is_dry_run=is_dry_run) == Reconciliation(5, 0, 0, 0, 0)


async def test_whatever_was_done_to_the_store_is_undone(service: Service, org: str) -> None:
    client = client_of(service)
    before = await stored_tuples(service)
    mallory = service.as_("user:mallory")
    dave = TupleKey("user:dave", "org_member", f"organization:{org}")
    intruders = [
        TupleKey("user:mallory", "org_owner", f"organization:{org}"),
        TupleKey("user:mallory", "member", f"group:{org}/devs"),
        TupleKey("user:mallory", "member", f"group:{org}/gone"),
        TupleKey("user:mallory", "document_viewer", f"document:{uuid4()}"),
        TupleKey("user:mallory", "member", f"group:{uuid4()}/devs"),
        TupleKey("user:mallory", "org_owner", "organization:nonsense"),
    ]
    await client.write([RelationshipTuple(key) for key in intruders])
    await client.delete([TupleKey("user:alice", "org_owner", f"organization:{org}"), dave])
    await client.write([RelationshipTuple(dave)])
    await mallory.get(f"/organizations/{org}")
    found = Reconciliation(5 + len(intruders), 1, len(intruders), 1, 0)
    assert await run(service, is_dry_run=True) == found
    await mallory.get(f"/organizations/{org}")
    assert await run(service) == found
    await mallory.get(f"/organizations/{org}", 404)
    await service.as_("user:alice").get(f"/organizations/{org}")
    assert await stored_tuples(service) == before
    assert await run(service) == Reconciliation(5, 0, 0, 0, 0)


async def test_what_went_with_its_project_or_organization_is_swept(service: Service, alice: Caller, org: str) -> None:
    await alice.delete(f"/organizations/{org}")
    assert (await run(service)).excess == 5
    assert await stored_tuples(service) == set()


async def test_what_is_on_its_way_is_no_difference(service: Service, alice: Caller, org: str) -> None:
    await stop_sender()
    await alice.grant("ORGANIZATION", org, "user:erin", "ORG_MEMBER")
    await revoke(alice, 204, "ORGANIZATION", org, "user:dave", "ORG_MEMBER")
    assert await run(service, is_dry_run=True) == Reconciliation(6, 0, 0, 0, 0)
    assert await run(service) == Reconciliation(5, 0, 0, 0, 0)


async def test_a_repair_does_not_undo_what_changes_meanwhile(
    service: Service, alice: Caller, org: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the comparison and the repair a grant that was missing is revoked, and one that was too much is given."""
    client = client_of(service)
    dave, erin = (TupleKey(f"user:{name}", "org_member", f"organization:{org}") for name in ("dave", "erin"))
    await client.delete([dave])
    await client.write([RelationshipTuple(erin)])
    from app.authz import reconcile as module  # noqa: PLC0415 - the name is the function's, too

    original = module._repair

    async def meanwhile(*args: object) -> None:
        await revoke(alice, 204, "ORGANIZATION", org, "user:dave", "ORG_MEMBER")
        await alice.grant("ORGANIZATION", org, "user:erin", "ORG_MEMBER")
        await original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_repair", meanwhile)
    await run(service)
    await assert_copy_is_true(service)
    await service.as_("user:dave").get(f"/organizations/{org}", 404)
    await service.as_("user:erin").get(f"/organizations/{org}")


def command(folder: Path, server: OpenFGAServer | None, *words: str, **settings: str) -> Result:
    url = server.url if server is not None else f"http://127.0.0.1:{free_port()}"
    told = {"SAASBASE_AUTHZ__OPENFGA__URL": url, "SAASBASE_AUTHZ__OPENFGA__TIMEOUT_SECONDS": "30", **settings}
    return run_saasbase(folder, "authz", *words, **told)


def test_the_model_is_printed(tmp_path: Path) -> None:
    ended = command(tmp_path, None, "model")
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out) == make_model()


def test_setup_prints_settings_and_a_second_time_the_same(openfga_server: OpenFGAServer, database_url: str, tmp_path: Path) -> None:
    name = f"store-{uuid4().hex[:8]}"
    first = command(tmp_path, openfga_server, "setup", "--name", name)
    assert (first.status, first.err) == (0, "")
    printed = dict(line.split("=", 1) for line in first.out.splitlines())
    assert list(printed) == ["SAASBASE_AUTHZ__OPENFGA__STORE_ID", "SAASBASE_AUTHZ__OPENFGA__MODEL_ID"]
    assert command(tmp_path, openfga_server, "setup", "--name", name) == first
    store_only = {"SAASBASE_AUTHZ__OPENFGA__STORE_ID": printed["SAASBASE_AUTHZ__OPENFGA__STORE_ID"]}
    assert command(tmp_path, openfga_server, "setup", **store_only) == first
    ended = command(tmp_path, openfga_server, "reconcile", "--dry-run", **environment_of(database_url), **printed)
    assert ended == Result(0, "compared 0, missing 0, too many 0, with another end 0\n", "")


async def test_the_command_repairs_and_says_what(
    service: Service, org: str, database_url: str, openfga_server: OpenFGAServer, tmp_path: Path
) -> None:
    client: OpenFGAClient = client_of(service)
    await client.delete([TupleKey("user:alice", "org_owner", f"organization:{org}")])
    settings = {**environment_of(database_url), "SAASBASE_AUTHZ__OPENFGA__STORE_ID": client.store_id}
    expected = Result(0, "compared 5, missing 1, too many 0, with another end 0\n", "")
    assert command(tmp_path, openfga_server, "reconcile", "--dry-run", **settings) == expected
    assert command(tmp_path, openfga_server, "reconcile", **settings) == expected
    await service.as_("user:alice").get(f"/organizations/{org}")


@pytest.mark.parametrize("words", [["setup"], ["reconcile"]])
def test_no_server_is_one_line(words: list[str], database_url: str, tmp_path: Path) -> None:
    settings = {**environment_of(database_url), "SAASBASE_AUTHZ__OPENFGA__STORE_ID": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    ended = command(tmp_path, None, *words, **settings)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "saasbase: OpenFGA (SAASBASE_AUTHZ__OPENFGA__URL) does not answer: ConnectError\n"


@pytest.mark.parametrize("words", [["authz", "reconcile"], ["serve"]])
def test_no_store_is_one_line(words: list[str], database_url: str, tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, *words, **environment_of(database_url), SAASBASE_AUTHZ__ENGINE="openfga")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("saasbase: SAASBASE_AUTHZ__OPENFGA__STORE_ID: is empty; 'saasbase authz setup'")
    assert ended.err.count("\n") == 1
