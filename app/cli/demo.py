"""``demo``: a small believable world to look around in, made by calling the service's own API inside this process."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any, Final

import httpx

from app.cli.root import CommandError
from app.main import create_app
from app.settings import Settings
from app.settings.limits import LimitSettings

SLUG: Final = "demo"
_HOMES: Final = "/organizations"
_HOME: Final = "127.0.0.1"
_HANDBOOK: Final = ("# Handbook\n\nBe kind.\n", "# Handbook\n\nBe kind. Answer within a day.\n")


class Caller:
    """Someone who calls the API."""

    def __init__(self, client: httpx.AsyncClient, header: str, subject: str) -> None:
        self._client = client
        self._headers = {header: subject}

    async def post(self, path: str, body: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Send, and expect it to be taken."""
        found: dict[str, Any] = (await self._send("POST", path, json=body, **options)).json()
        return found

    async def delete(self, path: str) -> None:
        """Remove, and expect it to be gone."""
        await self._send("DELETE", path)

    async def upload(self, path: str, text: str, **fields: str) -> dict[str, Any]:
        """Send a file."""
        return await self.post(path, files={"file": ("handbook.md", text.encode(), "text/markdown")}, data=fields)

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = await self._client.request(method, path, headers=self._headers, **options)
        if answer.status_code == httpx.codes.CONFLICT and path == _HOMES:
            raise CommandError(f"there is an organization {SLUG!r} already")
        if answer.is_error:
            raise CommandError(f"the demo cannot be made: {method} {path} is answered {answer.status_code}: {answer.json()['detail']}")
        return answer


async def make_demo(settings: Settings) -> str:
    """Make the organization ``demo``, with people, documents, calls and traces; returns the token of a key that may see it all.

    Raises:
        CommandError: there is one already, or the service refuses a part of it; then nothing of it is left.
    """
    async with _open_api(settings) as client:
        alice, bob, agent = (Caller(client, settings.actor.header, subject) for subject in ("user:alice", "user:bob", "agent:helper"))
        home = (await alice.post(_HOMES, {"slug": SLUG, "name": "Demo Inc."}))["id"]
        try:
            return await _furnish(home, alice, bob, agent)
        except BaseException:  # half a demo would be in the way of the next
            await alice.delete(f"{_HOMES}/{home}")
            raise


async def _furnish(home: str, alice: Caller, bob: Caller, agent: Caller) -> str:
    website, support = [
        (await alice.post("/projects", {"organization_id": home, "name": name}))["id"] for name in ("Website", "Customer support")
    ]
    await _people(alice, home, website, support)
    handbook = await bob.upload(f"/projects/{website}/documents", _HANDBOOK[0], name="Handbook")
    await bob.upload(f"/documents/{handbook['id']}/versions", _HANDBOOK[1], version_name="with-times")
    await _answer_a_customer(agent, support)
    wanted = {"name": "look around", "scope_type": "ORGANIZATION", "scope_id": home, "role": "ORG_ADMIN"}
    return str((await alice.post("/api-keys", wanted))["token"])


async def _people(alice: Caller, home: str, website: str, support: str) -> None:
    await alice.post(f"/organizations/{home}/groups", {"group_id": "editors", "name": "Editors"})
    await alice.post(f"/organizations/{home}/groups/editors/members", {"member_type": "USER", "member_id": "bob"})
    for place, (kind, who), role in (
        (website, ("GROUP", "editors"), "PROJECT_EDITOR"),
        (support, ("AGENT", "helper"), "PROJECT_EDITOR"),
        (support, ("USER", "carol"), "PROJECT_VIEWER"),
    ):
        grant = {"resource_type": "PROJECT", "resource_id": place, "actor_type": kind, "actor_id": who, "role": role}
        await alice.post("/memberships", grant)


async def _answer_a_customer(agent: Caller, project: str) -> None:
    """A run of an agent: it thinks, calls a tool, and answers."""
    model = {"kind": "LLM", "model_provider": "example", "model_name": "small"}
    items: list[dict[str, Any]] = [
        {"op": "start", "operation": "answer_ticket", "kind": "AGENT", "input": {"ticket": 4711}},
        {"op": "start", "operation": "chat", "parent_index": 0, **model},
        {"op": "start", "operation": "look_up_order", "kind": "TOOL", "parent_index": 0, "input": {"order": "A-17"}},
        {"op": "complete", "execution_index": 1, "usage": {"input_tokens": 812, "output_tokens": 64}},
        {"op": "fail", "execution_index": 2, "error_code": "timeout", "error_message": "The order system did not answer."},
        {"op": "complete", "execution_index": 0, "output": {"answer": "We are looking into it."}},
    ]
    await agent.post(f"/projects/{project}/executions/batch", {"items": items})
    call = {"name": "Order of ticket 4711", "operation_key": "orders.read", "request_payload": {"order": "A-17"}}
    await agent.post(f"/projects/{project}/api-calls", call)


@asynccontextmanager
async def _open_api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The service inside this process, which believes whoever names himself and counts nothing: nobody else can reach it."""
    actor = settings.actor.model_copy(update={"trusted_proxies": (ip_network(_HOME),), "proxy_secret": None, "resolver": ""})
    web = settings.web.model_copy(update={"enabled": True, "ops_port": 0})  # a service that runs here has that port
    app = create_app(settings.model_copy(update={"actor": actor, "web": web, "limits": LimitSettings()}))
    transport = httpx.ASGITransport(app, client=(_HOME, 0))
    url = f"http://{_HOME}{settings.web.base_path}"
    logging.getLogger("app").setLevel(logging.WARNING)  # what went well is the token
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=url) as client:
        yield client
