"""Organizations over HTTP."""

import httpx
import pytest

from tests.conftest import Caller
from tests.support.server import Server

pytestmark = pytest.mark.anyio


async def test_the_creator_becomes_owner(alice: Caller) -> None:
    organization = await alice.new_organization(name="Acme")
    grants = (await alice.get("/memberships", params={"resource_type": "ORGANIZATION", "resource_id": organization["id"]})).json()
    assert [(grant["actor"], grant["role"]) for grant in grants] == [({"type": "USER", "id": "alice"}, "ORG_OWNER")]


async def test_a_stranger_gets_the_answer_of_something_absent(alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    path, headers = f"/organizations/{organization['id']}", {"X-Request-ID": "same"}
    invisible = await mallory.get(path, 404, headers=headers)
    await alice.delete(path)
    absent = await mallory.get(path, 404, headers=headers)
    assert invisible.content == absent.content
    assert invisible.headers == absent.headers


def test_a_service_over_a_socket_answers(server: Server) -> None:
    assert httpx.get(f"{server.url}/livez").json() == {"status": "ok"}
