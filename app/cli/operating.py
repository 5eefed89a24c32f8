"""What the operator of the service does for its tenants. He holds everything; what he does is recorded as done by ``service:saasbase``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import InstrumentedAttribute

from app.audit.trail import Origin
from app.authn.api_keys import find_key_id
from app.authz.engine import Located
from app.cli.root import CommandError
from app.core.actors import Actor, Identity, InvalidActorError
from app.core.errors import AppError, ConflictError
from app.core.keys import SCHEME
from app.core.permissions import Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.http.runtime import Runtime
from app.http.schemas import show_rows
from app.main import close_runtime, make_runtime, prepare_schema
from app.models import ApiKey, Organization, Project
from app.resources.api_keys.repository import ApiKeyRepository
from app.resources.api_keys.schemas import ApiKeyCreate, ApiKeyRead, ApiKeyRotate
from app.resources.api_keys.service import ApiKeyService
from app.resources.organizations.schemas import OrganizationCreate
from app.resources.organizations.service import OrganizationService
from app.settings import Settings
from app.unit_of_work import SYSTEM, UnitOfWork, open_system_work

_EVERYTHING = frozenset(Action)

Shape = TypeVar("Shape", bound=BaseModel)


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """The service's parts without the service, on a schema of this release."""
    runtime = make_runtime(settings)
    try:
        await prepare_schema(runtime.context.database)
        yield runtime
    finally:
        await close_runtime(runtime)


async def bootstrap(settings: Settings, slug: str, owner: str, key_name: str) -> str:
    """Make an organization and a key that may do everything in it, in one transaction and on behalf of its owner; the token.

    Raises:
        CommandError: the slug is taken, or what was given cannot be used.
    """
    identity = Identity(_actor(owner), SYSTEM.method)
    new = _checked(OrganizationCreate, slug=slug)
    async with open_runtime(settings) as runtime, UnitOfWork(runtime.context, identity, Origin(), is_read_only=False) as work:
        try:
            made = await OrganizationService(work, may_create=True).create(new)
        except ConflictError:
            told = f"there is an organization {slug!r} already; 'saasbase keys create' makes another key for it"
            raise CommandError(told) from None
        except AppError as error:
            raise CommandError(error.detail) from None
        row: Any = made
        home = Located(ResourceRef(ResourceType.ORGANIZATION, made.id), made.id, None, row, _EVERYTHING)
        wanted = _checked(ApiKeyCreate, name=key_name, scope_type=home.ref.type, scope_id=home.id, role=Role.ORG_OWNER)
        return (await ApiKeyService(work, runtime.pepper).create(home, wanted)).token


async def create_key(settings: Settings, slug: str, project_id: UUID | None, **wanted: Any) -> str:
    """Make a key of an organization or of a project in it; the token.

    Raises:
        CommandError: there is no such place, or what was given cannot be used.
    """
    async with open_runtime(settings) as runtime:
        scope = await _find(runtime, Organization.slug, slug, f"there is no organization {slug!r}")
        if project_id is not None:
            missing = f"the organization has no project {project_id}"
            home, scope = scope, await _find(runtime, Project.id, project_id, missing)
            if scope.organization_id != home.organization_id:
                raise CommandError(missing)
        new = _checked(ApiKeyCreate, scope_type=scope.ref.type, scope_id=scope.id, **wanted)
        async with open_system_work(runtime.context, "command line", scope.organization_id) as work:
            return (await ApiKeyService(work, runtime.pepper).create(scope, new)).token


async def list_keys(settings: Settings, slug: str) -> list[ApiKeyRead]:
    """The keys of an organization and of its projects, oldest first, those that have ended too.

    Raises:
        CommandError: there is no such organization.
    """
    async with open_runtime(settings) as runtime:
        home = await _find(runtime, Organization.slug, slug, f"there is no organization {slug!r}")
        async with open_system_work(runtime.context, "command line", home.organization_id) as work:
            return show_rows(await ApiKeyRepository(work).list_all(), ApiKeyRead)


async def rotate_key(settings: Settings, named: str, overlap_seconds: int) -> str:
    """Give a key a new secret; the token.

    Raises:
        CommandError: there is no such key.
    """
    asked = _checked(ApiKeyRotate, overlap_seconds=overlap_seconds)
    async with open_key(settings, named) as (keys, key):
        return (await keys.rotate(key, asked)).token


async def revoke_key(settings: Settings, named: str) -> tuple[UUID, datetime | None]:
    """End a key and those it has made; its id, and since when it is revoked.

    Raises:
        CommandError: there is no such key.
    """
    async with open_key(settings, named) as (keys, key):
        revoked = await keys.revoke(key)
        return revoked.id, revoked.revoked_at


@asynccontextmanager
async def open_key(settings: Settings, named: str) -> AsyncIterator[tuple[ApiKeyService, Located]]:
    """A key by its id, or by the public part of its token (what follows the dot is not looked at), and what can be done to it."""
    missing = "there is no such key"
    async with open_runtime(settings) as runtime:
        key_id = _id(named) or await find_key_id(runtime.context.database, named.partition(".")[0].removeprefix(SCHEME))
        if key_id is None:
            raise CommandError(missing)
        key = await _find(runtime, ApiKey.id, key_id, missing)
        if key.row.deleted_at is not None:
            raise CommandError(missing)
        async with open_system_work(runtime.context, "command line", key.organization_id) as work:
            yield ApiKeyService(work, runtime.pepper), key


async def _find(runtime: Runtime, column: InstrumentedAttribute[Any], value: Any, missing: str) -> Located:
    work = UnitOfWork(runtime.context, SYSTEM, Origin(), is_read_only=True)
    try:
        found = await work.find_by(column, value)
    finally:
        await work.rollback()
    if found is None:
        raise CommandError(missing)
    return replace(found, granted=_EVERYTHING)


def _actor(text: str) -> Actor:
    try:
        return Actor.from_subject(text)
    except InvalidActorError as error:
        raise CommandError(f"--owner: {error}") from None


def _checked(shape: type[Shape], **values: Any) -> Shape:
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        faults = (f"{' '.join(map(str, fault['loc'])) or 'options'}: {fault['msg']}" for fault in error.errors(include_url=False))
        raise CommandError("\n".join(faults)) from None


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
