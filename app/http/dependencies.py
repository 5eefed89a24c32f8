"""What handlers ask for: the unit of work, already attributed to whoever is calling."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import Depends, Request

from app.audit.trail import Origin
from app.authn.proxies import Credentials
from app.authn.resolver import MayNotActForOthersError
from app.core.actors import Identity
from app.core.errors import BadRequestError, ForbiddenError, UnauthenticatedError
from app.db.wanted import Wanted
from app.http.requests import RequestInfo, request_info
from app.http.runtime import Runtime, runtime_of
from app.models.audit_event import MAX_USER_AGENT
from app.unit_of_work import UnitOfWork
from app.unit_of_work import open_work as open_unit_of_work

READING_METHODS: Final = frozenset({"GET", "HEAD"})
_WORK: Final = "saasbase.work"


@asynccontextmanager
async def open_work(request: Request, wanted: Wanted | None) -> AsyncIterator[None]:
    """The unit of work of a request, already attributed, for as long as the block lasts. ``wanted`` is the row its path names, if known."""
    runtime = runtime_of(request)
    info = request_info(request.scope)
    peer = request.client.host if request.client else None
    address = _address_of(request, runtime)
    identity = await _identify(runtime, Credentials(request.scope["headers"], peer, wanted), address, info)
    origin = Origin(
        ip=address,
        user_agent=_printable(request.headers.get("user-agent")),
        request_id=info.request_id,
        correlation_id=info.correlation_id,
    )
    async with open_unit_of_work(runtime.context, identity, origin, is_read_only=request.method in READING_METHODS) as work:
        work.wanted = wanted
        request.scope[_WORK] = work
        try:
            yield
        finally:
            info.organization_id = str(work.organization_id) if work.organization_id is not None else None


async def _identify(runtime: Runtime, credentials: Credentials, address: str | None, info: RequestInfo) -> Identity:
    """Who is calling, noted and counted; before anything else is asked."""
    try:
        identity = await runtime.resolver.resolve(credentials)
    except (UnauthenticatedError, BadRequestError, ForbiddenError) as error:
        if isinstance(error, MayNotActForOthersError):
            _note(error.wanted, info)
        if runtime.limits is not None:
            await runtime.limits.take_of_peer(address, info)
        raise
    _note(identity, info)
    if runtime.limits is not None:
        await runtime.limits.take(identity, address, info)
    return identity


def _note(identity: Identity, info: RequestInfo) -> None:
    info.actor = identity.actor.subject
    info.on_behalf_of = identity.principal.subject if identity.principal is not None else None


def _address_of(request: Request, runtime: Runtime) -> str | None:
    peer = request.client.host if request.client else None
    return runtime.trust.client_of(peer, ",".join(request.headers.getlist("x-forwarded-for")))


async def get_work(request: Request) -> UnitOfWork:
    """The request's unit of work."""
    work: UnitOfWork = request.scope[_WORK]
    return work


async def get_runtime(request: Request) -> Runtime:
    """The capabilities of this process."""
    return runtime_of(request)


def _printable(text: str | None) -> str | None:
    return "".join(letter for letter in text if letter.isprintable())[:MAX_USER_AGENT] if text else None


Work = Annotated[UnitOfWork, Depends(get_work)]
TheRuntime = Annotated[Runtime, Depends(get_runtime)]
