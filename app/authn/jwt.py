"""Tokens of OpenID Connect and OAuth issuers as proof of identity (RFC 7519, with the advice of RFC 8725)."""

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from jwt import PyJWS
from jwt.exceptions import PyJWTError

from app.authn.claims import ClaimsReader, RefusedTokenError
from app.authn.jwks import IssuerKeys, make_client
from app.authn.resolver import REFUSED
from app.core.actors import Identity
from app.core.clock import now
from app.core.errors import UnauthenticatedError
from app.core.issuers import Issuer, SigningAlgorithm
from app.core.text import InvalidTextError, read_json_object
from app.db.wanted import Wanted

_log = logging.getLogger(__name__)

MAX_TOKEN: Final = 16 * 1024
_FORM: Final = re.compile(r"([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)\.[A-Za-z0-9_-]++")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SIGNATURES: Final = PyJWS(algorithms=[algorithm.value for algorithm in SigningAlgorithm])


@dataclass(frozen=True, slots=True)
class _Trusted:
    claims: ClaimsReader
    keys: IssuerKeys


class JwtVerifier:
    """Turns a signed token of a configured issuer into the identity of its subject. Keeps keys, never a verdict on a token."""

    def __init__(self, issuers: Collection[Issuer], algorithms: Collection[SigningAlgorithm], leeway_seconds: float) -> None:
        self._client = make_client()
        self._algorithms = {algorithm.value: algorithm for algorithm in algorithms}
        self._issuers = {
            issuer.issuer: _Trusted(
                ClaimsReader(issuer, f"{issuer.alias}|" if len(issuers) > 1 else "", leeway_seconds),
                IssuerKeys(issuer.jwks_url, self._client, algorithms),
            )
            for issuer in issuers
        }

    async def verify(
        self,
        token: str,
        address: str | None,  # noqa: ARG002 - tokens are bound to no address
        wanted: Wanted | None = None,  # noqa: ARG002 - what proves them is in no database
    ) -> Identity:
        """The identity the token proves. Whatever is wrong with a token, the answer is the same.

        Raises:
            UnauthenticatedError: it proves nothing.
            UnavailableError: its issuer's keys are not known and cannot be fetched.
        """
        try:
            return await self._verify(token)
        except RefusedTokenError as error:
            _log.debug("a token is refused: %s", error)
            raise UnauthenticatedError(REFUSED) from None

    async def aclose(self) -> None:
        """End what is under way."""
        await asyncio.gather(*(trusted.keys.aclose() for trusted in self._issuers.values()))
        await self._client.aclose()

    async def _verify(self, token: str) -> Identity:
        if len(token) > MAX_TOKEN:
            raise RefusedTokenError("too long")
        parts = _FORM.fullmatch(token)
        if parts is None:
            raise RefusedTokenError("not three parts in base64url")
        header, claims = _read(parts[1]), _read(parts[2])
        kind = header.get("typ", "jwt")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise RefusedTokenError("another type of token")
        trusted, algorithm, key_id = self._named(header, claims)
        key = await trusted.keys.find(algorithm, key_id)
        if key is None:
            raise RefusedTokenError("signed with a key the issuer does not have")
        try:
            _SIGNATURES.decode(token, key, [algorithm.value])
        except PyJWTError as error:
            raise RefusedTokenError(type(error).__name__) from None
        trusted.claims.require_valid(claims, now().timestamp())
        return trusted.claims.identity(claims)

    def _named(self, header: dict[str, Any], claims: dict[str, Any]) -> tuple[_Trusted, SigningAlgorithm, str | None]:
        """Whom and what a token names, nothing of it believed yet; an address or a key it brings along is not even looked at."""
        issuer, algorithm, key_id = claims.get("iss"), header.get("alg"), header.get("kid")
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise RefusedTokenError("an unknown issuer")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise RefusedTokenError("an algorithm that is not accepted")
        if not isinstance(key_id, str | None):
            raise RefusedTokenError("kid is no text")
        return self._issuers[issuer], self._algorithms[algorithm], key_id


def _read(part: str) -> dict[str, Any]:
    try:
        return read_json_object(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, InvalidTextError):
        raise RefusedTokenError("a part cannot be read") from None
