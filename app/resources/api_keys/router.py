"""Routes of API keys."""

from typing import Annotated

from fastapi import Body, Depends, Query, Request, Response

from app.authz.engine import Located
from app.core.permissions import Action
from app.core.resources import ResourceRef
from app.http.bounded import link_next
from app.http.dependencies import TheRuntime, Work
from app.http.routes import Routes
from app.http.schemas import show_rows
from app.http.targets import TheApiKey, everything, the_api_key
from app.resources.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyListQuery, ApiKeyRead, ApiKeyRotate, ApiKeyUpdate
from app.resources.api_keys.service import ApiKeyService, existing

routes = Routes("api-keys")


async def open_api_keys(work: Work, runtime: TheRuntime) -> ApiKeyService:
    """The rules of API keys for this request."""
    return ApiKeyService(work, runtime.pepper)


async def the_scope(new: ApiKeyCreate, work: Work) -> Located:
    """The organization or project that the body names."""
    return await work.locate_ref(ResourceRef(new.scope_type, new.scope_id))


ApiKeys = Annotated[ApiKeyService, Depends(open_api_keys)]


@routes.post("/api-keys", allow=Action.MEMBER_MANAGE, on=the_scope, problems=(404,))
async def create_api_key(scope: Annotated[Located, Depends(the_scope)], new: ApiKeyCreate, api_keys: ApiKeys) -> ApiKeyCreated:
    """Make an API key for an organization or a project.

    The token is shown only in this answer. A key holds no action that you do not hold there yourself.
    """
    return await api_keys.create(scope, new)


@routes.get("/api-keys", allow=Action.MEMBER_MANAGE, on=everything)
async def list_api_keys(
    query: Annotated[ApiKeyListQuery, Query()], request: Request, response: Response, api_keys: ApiKeys
) -> list[ApiKeyRead]:
    """List the API keys of an organization or of one scope, revoked ones included, oldest first."""
    page = await api_keys.list_visible(query)
    link_next(request, response, query, page)
    return show_rows(page.items, ApiKeyRead)


@routes.get("/api-keys/{api_key_id}", allow=Action.MEMBER_MANAGE, on=the_api_key)
async def read_api_key(key: TheApiKey) -> ApiKeyRead:
    """Read an API key. Its secret is never shown again."""
    return ApiKeyRead.from_row(existing(key))


@routes.patch("/api-keys/{api_key_id}", allow=Action.MEMBER_MANAGE, on=the_api_key)
async def update_api_key(key: TheApiKey, changes: ApiKeyUpdate, api_keys: ApiKeys) -> ApiKeyRead:
    """Rename an API key, or change its end, its networks or its metadata."""
    return await api_keys.update(key, changes)


@routes.post("/api-keys/{api_key_id}/rotate", allow=Action.MEMBER_MANAGE, on=the_api_key, status_code=200)
async def rotate_api_key(
    key: TheApiKey, asked: Annotated[ApiKeyRotate, Body(default_factory=ApiKeyRotate)], api_keys: ApiKeys
) -> ApiKeyCreated:
    """Give an API key a new secret.

    The old one keeps working for `overlap_seconds`; the key's id, role and end stay.
    """
    return await api_keys.rotate(key, asked)


@routes.post("/api-keys/{api_key_id}/revoke", allow=Action.MEMBER_MANAGE, on=the_api_key, status_code=200)
async def revoke_api_key(key: TheApiKey, api_keys: ApiKeys) -> ApiKeyRead:
    """End an API key, and every key it has made, from the next request on."""
    return await api_keys.revoke(key)


@routes.delete("/api-keys/{api_key_id}", allow=Action.MEMBER_MANAGE, on=the_api_key)
async def delete_api_key(key: TheApiKey, api_keys: ApiKeys) -> None:
    """Revoke an API key and show it no more."""
    await api_keys.delete(key)
