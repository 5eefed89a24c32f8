"""Which requests are counted together, and what a caller is told of its quota (draft-ietf-httpapi-ratelimit-headers)."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.core.actors import ActorType, Identity
from app.core.addresses import origin_of
from app.core.errors import RateLimitedError
from app.http.requests import RequestInfo
from app.limits.buckets import WINDOW_SECONDS, Limiter, Standing
from app.observability.metrics import RATE_LIMITED


@dataclass(frozen=True, slots=True)
class Quotas:
    """Requests a minute, and so many at once; 0 = no limit."""

    of_key: int
    of_actor: int
    of_peer: int


class RequestLimits:
    """Counts a request once it is known who sent it: by API key, by any other actor, or by the address of who showed no identity."""

    def __init__(self, quotas: Quotas, limiter: Limiter) -> None:
        self.limiter = limiter
        self._quotas = quotas

    async def take(self, identity: Identity, address: str | None, info: RequestInfo) -> None:
        """Count a request of a caller who is known, or is nobody.

        Raises:
            RateLimitedError: there have been too many.
        """
        if identity.is_anonymous:
            await self.take_of_peer(address, info)
        elif identity.actor.type is ActorType.API_KEY:
            await self._take(f"key:{identity.actor.id}", self._quotas.of_key, info)
        else:
            await self._take(f"actor:{identity.actor.subject}", self._quotas.of_actor, info)

    async def take_of_peer(self, address: str | None, info: RequestInfo) -> None:
        """Count a request of a caller who has failed to show an identity. Raises what ``take`` does."""
        await self._take(f"peer:{origin_of(address)}", self._quotas.of_peer, info)

    async def _take(self, caller: str, quota: int, info: RequestInfo) -> None:
        if not quota:
            return
        standing = info.standing = await self.limiter.take(caller, quota)
        if standing.seconds_to_wait:
            RATE_LIMITED.inc()
            raise RateLimitedError(standing.seconds_to_wait)


def headers_of(standing: Standing) -> Iterator[tuple[bytes, bytes]]:
    """What every answer to a limited caller tells."""
    yield b"ratelimit", b'"default";r=%d;t=%d' % (standing.remaining, standing.seconds_to_full)
    yield b"ratelimit-policy", b'"default";q=%d;w=%d' % (standing.quota, WINDOW_SECONDS)
