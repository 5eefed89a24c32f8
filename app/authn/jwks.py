"""The keys issuers sign with (RFC 7517): fetched from the configured address, kept for a while, fetched anew for a token with a new one."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Self

import httpx
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from app.core.errors import UnavailableError
from app.core.issuers import SigningAlgorithm
from app.core.text import InvalidTextError, read_json_object

_log = logging.getLogger(__name__)

FRESH_SECONDS: Final = 600.0  # for so long fetched keys are taken without asking again
MAX_AGE_SECONDS: Final = 86400.0  # for so long they are taken while asking again fails
RENEWAL_PAUSE_SECONDS: Final = 60.0  # between two fetches because of an unknown key, and after a failure that left keys in hand
RETRY_PAUSE_SECONDS: Final = 1.0  # after a failure that left none: what Retry-After says
FETCH_SECONDS: Final = 5.0
MAX_BYTES: Final = 256 * 1024

_MEMBERS: Final = ("kty", "crv", "n", "e", "x", "y")  # of a public key; whatever else a key set tells of a key is not needed
_RSA: Final = frozenset(algorithm for algorithm in SigningAlgorithm if algorithm.value.startswith(("RS", "PS")))
_ALGORITHMS: Final[Mapping[tuple[Any, Any], frozenset[SigningAlgorithm]]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): frozenset({SigningAlgorithm.ES256}),
    ("EC", "P-384"): frozenset({SigningAlgorithm.ES384}),
    ("EC", "P-521"): frozenset({SigningAlgorithm.ES512}),
    ("OKP", "Ed25519"): frozenset({SigningAlgorithm.EDDSA}),
}


class KeySet:
    """The keys of an issuer that may sign tokens, each bound to the algorithms it is for."""

    def __init__(self, keys: Mapping[SigningAlgorithm, list[tuple[str | None, PyJWK]]]) -> None:
        self._keys = keys

    @classmethod
    def from_json(cls, text: bytes, allowed: Collection[SigningAlgorithm]) -> Self:
        """Read a JWK set. Keys that are not for signatures, too short, of another kind or broken are left out.

        Raises:
            InvalidTextError: it is no JWK set.
        """
        listed = read_json_object(text).get("keys")
        if not isinstance(listed, list):
            raise InvalidTextError("has no list of keys")
        keys: dict[SigningAlgorithm, list[tuple[str | None, PyJWK]]] = defaultdict(list)
        for jwk in listed:
            if isinstance(jwk, dict) and isinstance(jwk.get("kid"), str | None):
                for algorithm in _algorithms_of(jwk) & frozenset(allowed):
                    key = _public_key(jwk, algorithm)
                    if key is not None:
                        keys[algorithm].append((jwk.get("kid"), key))
        return cls(keys)

    def find(self, algorithm: SigningAlgorithm, key_id: str | None) -> PyJWK | None:
        """The key of that name for that algorithm; without a name, the only key for it."""
        keys = self._keys.get(algorithm, [])
        if key_id is None:
            return keys[0][1] if len(keys) == 1 else None
        return next((key for name, key in keys if name == key_id), None)


class IssuerKeys:
    """The keys of one issuer, as they are at its address.

    One fetch at a time, however many callers wait for it. Keys are fetched when the first token asks, when they are older than
    FRESH_SECONDS, and at most once in RENEWAL_PAUSE_SECONDS when a token names a key that is not among them. A fetch that fails
    leaves the keys as they were, until they are older than MAX_AGE_SECONDS.
    """

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        allowed: Collection[SigningAlgorithm],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._client = client
        self._allowed = allowed
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched_at = self._tried_at = self._renewed_at = float("-inf")
        self._fetch: asyncio.Task[None] | None = None

    async def find(self, algorithm: SigningAlgorithm, key_id: str | None) -> PyJWK | None:
        """The key a token names, or None when the issuer has none such. Costs a request to the issuer only when keys are fetched.

        Raises:
            UnavailableError: there are no keys, and they cannot be fetched.
        """
        has_asked = self._age() >= FRESH_SECONDS and self._is_due()
        if has_asked:
            await self._fetch_once()
        key = self._usable().find(algorithm, key_id)
        if key is None and (self._fetch is not None or self._clock() - self._renewed_at >= RENEWAL_PAUSE_SECONDS):
            self._renewed_at = self._clock()
            if not has_asked:
                await self._fetch_once()
                key = self._usable().find(algorithm, key_id)
        return key

    async def aclose(self) -> None:
        """End a fetch that is under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.gather(self._fetch, return_exceptions=True)

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _usable(self) -> KeySet:
        if self._keys is None or self._age() >= MAX_AGE_SECONDS:
            raise UnavailableError("The keys of the token's issuer cannot be had at the moment.", code="issuer_unavailable")
        return self._keys

    def _is_due(self) -> bool:
        pause = RENEWAL_PAUSE_SECONDS if self._age() < MAX_AGE_SECONDS else RETRY_PAUSE_SECONDS
        return self._fetch is not None or self._clock() - self._tried_at >= pause

    async def _fetch_once(self) -> None:
        """Fetch, or wait for the fetch under way; a caller who goes away does not end it for the others."""
        if self._fetch is None:
            self._fetch = asyncio.create_task(self._renew(), name="keys of an issuer")
        await asyncio.shield(self._fetch)

    async def _renew(self) -> None:
        self._tried_at = self._clock()
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = KeySet.from_json(await self._download(), self._allowed)
            self._fetched_at = self._clock()
        except (httpx.HTTPError, InvalidTextError, TimeoutError) as error:
            _log.warning("the keys at %s could not be fetched: %s", self._url, str(error) or type(error).__name__)
        finally:
            self._fetch = None

    async def _download(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                raise InvalidTextError(f"is not there: status {response.status_code}")
            async for chunk in response.aiter_raw():  # never unpacked, so never larger than it came
                body += chunk
                if len(body) > MAX_BYTES:
                    raise InvalidTextError(f"is larger than {MAX_BYTES // 1024} KiB")
        return bytes(body)


def make_client() -> httpx.AsyncClient:
    """The client keys are fetched with: it follows no redirect, because the configured address is the one that is trusted."""
    headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
    return httpx.AsyncClient(headers=headers, timeout=FETCH_SECONDS, follow_redirects=False)


def _algorithms_of(jwk: Mapping[str, Any]) -> frozenset[SigningAlgorithm]:
    """What a key may be used for: by its kind and curve, narrowed by what it says of itself."""
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return frozenset()
    kind, curve = jwk.get("kty"), jwk.get("crv")
    fitting = _ALGORITHMS.get((kind, curve), frozenset()) if isinstance(kind, str) and isinstance(curve, str | None) else frozenset()
    return fitting if "alg" not in jwk else frozenset(algorithm for algorithm in fitting if algorithm == jwk["alg"])


def _public_key(jwk: Mapping[str, Any], algorithm: SigningAlgorithm) -> PyJWK | None:
    try:
        key = PyJWK({name: jwk[name] for name in _MEMBERS if name in jwk}, algorithm.value)
    except PyJWTError:
        return None
    return key if key.Algorithm.check_key_length(key.key) is None else None
