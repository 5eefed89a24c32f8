"""The outbox: written with the change, sent in order, kept through crashes, and never forgotten."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import delete, update

from app.audit.trail import Subject
from app.authz.memberships import MembershipRepository
from app.authz.openfga_client import OpenFGAClient
from app.authz.openfga_terms import OpenFGADownError
from app.authz.outbox import Outbox
from app.authz.tuples import RelationshipTuple, TupleKey
from app.core.actors import Actor, ActorType
from app.core.clock import now
from app.core.events import AuditAction
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from app.db.engine import Database
from app.models import Membership
from app.unit_of_work import open_system_work
from tests.conftest import Caller, Service, open_service
from tests.openfga.conftest import openfga_settings
from tests.openfga.copy import ask, assert_copy_is_true, client_of, outbox_of, send_all, stop_sender, stored_tuples, unsent
from tests.resources.groups.test_api import member, new_group
from tests.resources.memberships.test_api import revoke
from tests.support.faults import Fault
from tests.support.openfga import OpenFGAServer
from tests.support.server import run_server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.fixture
async def unsent_org(alice: Caller) -> str:
    """One that is made while the sender stands still already: else it may have sent what made it, or not."""
    await stop_sender()
    return str((await alice.new_organization())["id"])


async def test_what_is_not_durable_is_not_written_down(service: Service, alice: Caller, org: str) -> None:
    await stop_sender()
    await send_all(service)
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER", 409)
    await revoke(alice, 409, "ORGANIZATION", org, "user:alice", "ORG_OWNER")
    await revoke(alice, 204, "ORGANIZATION", org, "user:nobody", "ORG_MEMBER")
    rows = await ask(service.runtime.context.database, "SELECT operation, subject, relation, resource FROM authz_outbox")
    assert [tuple(row) for row in rows] == [("write", "user:bob", "org_member", f"organization:{org}")]


async def test_the_built_in_engine_writes_nothing_down(openfga_server: OpenFGAServer, database_url: str, tmp_path: Path) -> None:
    settings = openfga_settings(openfga_server, database_url, tmp_path, engine="builtin")
    async with open_service(settings) as service:
        assert service.runtime.context.outbox is None
        await service.as_("user:alice").new_organization()
        assert await unsent(service) == 0


async def test_a_commit_wakes_the_sender(service: Service, alice: Caller, org: str) -> None:
    """Long before its second is over."""
    await send_all(service)
    await asyncio.sleep(0.05)  # it waits again
    outbox = outbox_of(service)
    waiting = asyncio.create_task(outbox._awake.wait())
    await asyncio.sleep(0)
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    await asyncio.wait_for(waiting, 60)  # nothing but a commit sets it


async def test_many_changes_of_one_tuple_end_as_the_last_one_says(service: Service, alice: Caller, unsent_org: str) -> None:
    org = unsent_org
    for _ in range(4):
        await alice.grant("ORGANIZATION", org, "user:stays", "ORG_MEMBER")
        await alice.grant("ORGANIZATION", org, "user:goes", "ORG_MEMBER")
        await revoke(alice, 204, "ORGANIZATION", org, "user:stays", "ORG_MEMBER")
        await revoke(alice, 204, "ORGANIZATION", org, "user:goes", "ORG_MEMBER")
    await alice.grant("ORGANIZATION", org, "user:stays", "ORG_MEMBER")
    assert await outbox_of(service).send() == 18
    assert {one[0] for one in await stored_tuples(service)} == {"user:alice", "user:stays"}


async def test_more_changes_than_one_write_takes_are_sent_in_order(service: Service, unsent_org: str) -> None:
    org = unsent_org
    ref = ResourceRef(ResourceType.ORGANIZATION, UUID(org))
    async with open_system_work(service.runtime.context, "many grants", UUID(org)) as work:
        grants = MembershipRepository(work.session)
        for number in range(230):
            await grants.grant(UUID(org), None, ref, Actor(ActorType.USER, f"u{number}"), Role.ORG_MEMBER, granted_by=work.actor)
        for number in range(0, 230, 2):
            await grants.revoke(ref, Actor(ActorType.USER, f"u{number}"), Role.ORG_MEMBER)
        work.record(AuditAction.MEMBERSHIP_GRANTED, Subject(ref, UUID(org)))
    assert await outbox_of(service).send() == 1 + 230 + 115
    assert len(await stored_tuples(service)) == 1 + 115


async def test_what_is_ticked_off_is_what_was_sent(
    service: Service, alice: Caller, unsent_org: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The organization goes while its changes are being sent, and SQLite numbers those of another one like them."""
    tell = Outbox._tell

    async def tell_while_others_write(self: Outbox, rows: Any) -> None:
        monkeypatch.setattr(Outbox, "_tell", tell)
        await tell(self, rows)
        await alice.delete(f"/organizations/{unsent_org}", expect=204)
        await alice.new_organization()

    monkeypatch.setattr(Outbox, "_tell", tell_while_others_write)
    await outbox_of(service).send()
    assert await unsent(service) == 1


async def test_a_batch_that_was_sent_and_not_ticked_off_is_sent_again(
    service: Service, alice: Caller, org: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has it, the database does not know: the process ended between the two."""
    await stop_sender()
    await send_all(service)
    for end in ("2999-01-01T00:00:00Z", None):
        await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER", expires_at=end)
        await alice.grant("ORGANIZATION", org, f"user:{end}", "ORG_MEMBER")
        with monkeypatch.context() as patch:
            fault = Fault(patch, OpenFGAClient, "write", nth=1, error=OpenFGADownError("is gone"), when="after")
            assert await outbox_of(service).send() == 0
            assert fault.has_struck
        assert await unsent(service) == 2
        await service.as_("user:bob").get(f"/organizations/{org}")
        await revoke(alice, 204, "ORGANIZATION", org, "user:bob", "ORG_MEMBER")
        await service.as_("user:bob").get(f"/organizations/{org}", 404)
        assert await outbox_of(service).send() == 3
        await service.as_("user:bob").get(f"/organizations/{org}", 404)
        assert not [one for one in await stored_tuples(service) if one[0] == "user:bob"]


async def test_two_senders_of_one_organization_take_turns(
    service: Service, alice: Caller, org: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One holds a grant in its hands; the revocation must not be sent before it."""
    await stop_sender()
    await send_all(service)
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    is_held, may_go = asyncio.Event(), asyncio.Event()
    write = OpenFGAClient.write

    async def slow_write(self: OpenFGAClient, tuples: Any) -> None:
        is_held.set()
        await may_go.wait()
        await write(self, tuples)

    context = service.runtime.context
    slow = Outbox(context.database, client_of(service))
    with monkeypatch.context() as patch:
        patch.setattr(OpenFGAClient, "write", slow_write)
        sending = asyncio.create_task(slow.send())
        await asyncio.wait_for(is_held.wait(), 60)
    await revoke(alice, 204, "ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    other = Database(context.database.for_jobs.url)
    assert await Outbox(other, client_of(service)).send() == 0
    may_go.set()
    assert await sending == 2
    await other.aclose()
    await send_all(service)
    assert not [one for one in await stored_tuples(service) if one[0] == "user:bob"]


async def test_what_the_server_refuses_holds_up_its_own_organization_only(service: Service, alice: Caller, unsent_org: str) -> None:
    org = unsent_org
    other = str((await alice.new_organization())["id"])
    row = (
        f"'{UUID(org).hex if service.runtime.context.database.is_sqlite else org}', 'write', 'user:x', 'no_such_role', 'organization:{org}'"
    )
    async with service.runtime.context.database.for_jobs.writer.begin() as connection:
        await connection.exec_driver_sql(
            f"INSERT INTO authz_outbox (organization_id, operation, subject, relation, resource, created_at) VALUES ({row}, '2026-01-01')"
        )
    assert await outbox_of(service).send() == 1
    assert await unsent(service) == 2
    assert {one[2] for one in await stored_tuples(service)} == {f"organization:{other}"}
    await alice.get(f"/organizations/{org}")  # SQL decides
    async with service.runtime.context.database.for_jobs.writer.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM authz_outbox WHERE subject = 'user:x'")


async def test_what_no_tuple_could_follow_is_refused(service: Service, alice: Caller, org: str) -> None:
    """A grant whose role were changed would leave its old tuple behind."""
    del alice
    async with open_system_work(service.runtime.context, "test", UUID(org)) as work:
        with pytest.raises(TypeError, match="only the end changes"):
            await work.session.execute(update(Membership).values(role="ORG_ADMIN"))
        with pytest.raises(TypeError, match="plain updates and deletes"):
            await work.session.execute(delete(Membership).returning(Membership.id))
        await work.session.orm_session.rollback()
        work.session.fence.has_changed = False


async def test_deleting_things_leaves_no_tuple_that_could_count_again(service: Service, alice: Caller, org: str) -> None:
    project = await alice.new_project(org)
    document = await alice.new_document(project["id"])
    await alice.grant("DOCUMENT", document["id"], "user:bob", "DOCUMENT_VIEWER")
    await alice.delete(f"/documents/{document['id']}")
    group = await new_group(alice, org, "devs", "user:bob")
    await alice.delete(f"{group}/members", params=member("user:bob"))
    await alice.delete(group)
    await send_all(service)
    assert {one[0] for one in await stored_tuples(service)} == {"user:alice"}


def test_what_was_committed_before_kill_9_is_sent_after_the_restart(own_server: OpenFGAServer, database_url: str, tmp_path: Path) -> None:
    store = own_server.new_store()
    settings: Any = {
        "SAASBASE_AUTHZ__ENGINE": "openfga",
        "SAASBASE_AUTHZ__OPENFGA__URL": own_server.url,
        "SAASBASE_AUTHZ__OPENFGA__STORE_ID": store,
    }
    headers = {"X-SaaSBase-Actor": "user:alice"}
    with run_server(database_url, tmp_path, **settings) as server:
        own_server.pause()
        with httpx.Client(base_url=f"{server.url}/api", headers=headers, timeout=30, trust_env=False) as client:
            org = client.post("/organizations", json={"slug": "kept"}).raise_for_status().json()["id"]
        server.kill()
    own_server.resume()
    with run_server(database_url, tmp_path, **settings):
        tuples = asyncio.run(_wait_for_tuples(own_server, store))
    assert tuples == [RelationshipTuple(TupleKey("user:alice", "org_owner", f"organization:{org}"))]


async def _wait_for_tuples(server: OpenFGAServer, store: str) -> list[RelationshipTuple]:
    client = OpenFGAClient(server.url, store, timeout_seconds=30)
    started = now()
    while not (found := [one async for one in client.read_all()]) and (now() - started).total_seconds() < 60:
        await asyncio.sleep(0.1)
    await client.aclose()
    return found


async def test_a_copy_that_lacks_a_change_is_seen(service: Service, alice: Caller, org: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the guard: the comparison that every test here ends with."""
    with monkeypatch.context() as patch:
        patch.setitem(__import__("app.authz.outbox", fromlist=["TUPLE_OF"]).TUPLE_OF, Membership, lambda _row: None)
        await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    with pytest.raises(AssertionError):
        await assert_copy_is_true(service)
    await revoke(alice, 204, "ORGANIZATION", org, "user:bob", "ORG_MEMBER")
