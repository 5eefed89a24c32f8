"""What handlers ask for: the unit of work, already attributed to whoever is calling."""

from typing import Annotated, Final

from fastapi import Depends, Request

from app.audit.trail import Origin
from app.authn.proxies import Credentials
from app.authn.resolver import MayNotActForOthersError
from app.core.actors import Identity
from app.core.errors import BadRequestError, ForbiddenError, UnauthenticatedError
from app.db.wanted import Wanted
from app.http.requests import RequestInfo
from app.http.runtime import Runtime, runtime_of
from app.models.audit_event import MAX_USER_AGENT
from app.unit_of_work import UnitOfWork

READING_METHODS: Final = frozenset({"GET", "HEAD"})
WORK: Final = "saasbase.work"
"""Where the scope of a request has its unit of work, as long as that lasts."""


async def begin_work(request: Request, info: RequestInfo, wanted: Wanted | None) -> UnitOfWork:
    """The unit of work of a request, attributed to whoever is calling. ``wanted`` is the row its path names, where that is known.

    Raises:
        UnauthenticatedError, BadRequestError, ForbiddenError, TooManyAttemptsError, UnavailableError: see ``ActorResolver``.
        RateLimitedError: the caller has sent too many requests.
    """
    runtime = runtime_of(request)
    client = request.client
    peer = client.host if client else None
    address = runtime.trust.client_of(peer, info.head.joined(b"x-forwarded-for"))
    identity = await _identify(runtime, Credentials(info.head, peer, wanted), address, info)
    origin = Origin(address, _printable(info.head.first(b"user-agent")), info.request_id, info.correlation_id)
    work = UnitOfWork(runtime.context, identity, origin, is_read_only=request.method in READING_METHODS)
    work.wanted = wanted
    request.scope[WORK] = work
    return work


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


async def get_work(request: Request) -> UnitOfWork:
    """The request's unit of work."""
    work: UnitOfWork = request.scope[WORK]
    return work


async def get_runtime(request: Request) -> Runtime:
    """The capabilities of this process."""
    return runtime_of(request)


def _printable(text: str | None) -> str | None:
    if text is None or text.isprintable():
        return text[:MAX_USER_AGENT] if text else None
    return "".join(letter for letter in text if letter.isprintable())[:MAX_USER_AGENT]


Work = Annotated[UnitOfWork, Depends(get_work)]
TheRuntime = Annotated[Runtime, Depends(get_runtime)]
