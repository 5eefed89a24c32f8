"""The keys of an issuer over real HTTP: when they are fetched, when not, and what happens while they cannot be."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.authn import jwks
from app.authn.jwks import IssuerKeys, KeySet, make_client
from app.core.errors import UnavailableError
from app.core.issuers import SigningAlgorithm
from app.core.text import InvalidTextError
from tests.support.issuers import CURVES, KeyServer, key_pair, run_key_server

pytestmark = pytest.mark.anyio

ALL = frozenset(SigningAlgorithm)
RS256 = SigningAlgorithm.RS256
ONE, TWO = key_pair(), key_pair("RS256", "two")


@dataclass
class Clock:
    """Time that passes when told to."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with run_key_server(ONE) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with make_client() as made:
        yield made


@pytest.fixture
async def keys(server: KeyServer, client: httpx.AsyncClient, clock: Clock) -> AsyncIterator[IssuerKeys]:
    made = IssuerKeys(server.url, client, ALL, clock)
    yield made
    await made.aclose()


async def knows(keys: IssuerKeys, key_id: str | None = "one") -> bool:
    return await keys.find(RS256, key_id) is not None


async def test_keys_are_fetched_when_first_asked_for_and_kept(keys: IssuerKeys, server: KeyServer, clock: Clock) -> None:
    assert server.fetches == 0
    for seconds in (0.0, 1.0, jwks.FRESH_SECONDS - 2):
        clock.seconds += seconds
        assert await knows(keys)
    assert server.fetches == 1
    clock.seconds += 1
    assert await knows(keys)
    assert server.fetches == 2


async def test_callers_at_once_share_one_fetch(keys: IssuerKeys, server: KeyServer) -> None:
    server.delay_seconds = 0.1
    assert await asyncio.gather(*(knows(keys) for _ in range(50))) == [True] * 50
    assert server.fetches == 1


async def test_a_caller_who_goes_away_does_not_end_the_fetch_for_the_others(keys: IssuerKeys, server: KeyServer) -> None:
    server.delay_seconds = 60
    first, second = asyncio.create_task(knows(keys)), asyncio.create_task(knows(keys))
    while not server.fetches:
        await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait([first])
    server.go_on.set()
    assert await second
    assert first.cancelled()
    assert server.fetches == 1


async def test_a_new_key_is_accepted_after_one_fetch(keys: IssuerKeys, server: KeyServer) -> None:
    assert await knows(keys)
    server.publish(ONE, TWO)
    server.delay_seconds = 0.1
    assert await asyncio.gather(*(knows(keys, "two") for _ in range(20))) == [True] * 20
    assert server.fetches == 2
    server.publish(TWO)
    assert await knows(keys, "one")  # until the keys are fetched again


async def test_a_key_that_is_withdrawn_goes_with_the_next_fetch(keys: IssuerKeys, server: KeyServer, clock: Clock) -> None:
    assert await knows(keys)
    server.publish(TWO)
    clock.seconds += jwks.FRESH_SECONDS
    assert not await knows(keys, "one")
    server.publish()
    clock.seconds += jwks.FRESH_SECONDS
    assert not await knows(keys, "two")


async def test_a_storm_of_unknown_keys_makes_one_fetch_a_minute(keys: IssuerKeys, server: KeyServer, clock: Clock) -> None:
    assert await knows(keys)
    for minute in range(3):
        for second in range(60):
            assert not await knows(keys, f"unknown-{second}")
            assert await knows(keys, "one")
            clock.seconds += 1
        assert server.fetches == 2 + minute


async def test_a_storm_from_the_very_start_makes_one_fetch(keys: IssuerKeys, server: KeyServer, clock: Clock) -> None:
    assert await asyncio.gather(*(knows(keys, f"unknown-{number}") for number in range(30))) == [False] * 30
    for _ in range(59):
        clock.seconds += 1
        assert not await knows(keys, "unknown")
    assert server.fetches == 1


async def test_without_keys_the_service_is_unavailable_until_they_come(
    keys: IssuerKeys, server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server.status = 503
    for _ in range(5):
        with pytest.raises(UnavailableError):
            await keys.find(RS256, "one")
    assert server.fetches == 1  # not again within the second that Retry-After asks for
    assert [record.levelno for record in caplog.records if record.name == jwks.__name__] == [logging.WARNING]
    server.status = 200
    clock.seconds += jwks.RETRY_PAUSE_SECONDS
    assert await knows(keys)


async def test_old_keys_serve_for_a_day_while_the_issuer_is_down(
    keys: IssuerKeys, server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert await knows(keys)
    server.status = 500
    clock.seconds += jwks.FRESH_SECONDS
    for second in range(120):
        assert await knows(keys), second
        clock.seconds += 1
    assert server.fetches == 3  # and not once for each caller
    assert "status 500" in caplog.text
    clock.seconds += jwks.MAX_AGE_SECONDS - jwks.FRESH_SECONDS - 121
    assert await knows(keys)
    clock.seconds += 1
    with pytest.raises(UnavailableError):
        await keys.find(RS256, "one")
    server.status = 200
    clock.seconds += 1
    assert await knows(keys)


async def test_an_unknown_key_is_unknown_while_the_issuer_is_down(keys: IssuerKeys, server: KeyServer) -> None:
    assert await knows(keys)
    server.status = 500
    assert not await knows(keys, "two")
    assert await knows(keys, "one")


async def test_a_server_that_does_not_listen_at_all(client: httpx.AsyncClient, clock: Clock) -> None:
    with run_key_server(ONE) as gone:
        keys = IssuerKeys(gone.url, client, ALL, clock)
    with pytest.raises(UnavailableError):
        await keys.find(RS256, "one")
    with run_key_server(ONE, port=int(httpx.URL(gone.url).port or 0)):
        clock.seconds += 1
        assert await knows(keys)


@pytest.mark.parametrize("way", ["slow", "dripping", "endless"])
async def test_a_fetch_ends_in_time_and_at_the_largest_size(
    way: str, keys: IssuerKeys, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.3)
    if way == "slow":
        server.delay_seconds = 60
    else:
        server.endless = b" " if way == "dripping" else b" " * 65536
    started = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError):
        await keys.find(RS256, "one")
    assert asyncio.get_running_loop().time() - started < 30


async def test_a_key_set_may_be_large_but_not_huge(keys: IssuerKeys, server: KeyServer, clock: Clock) -> None:
    server.body = server.body.ljust(jwks.MAX_BYTES)
    assert await knows(keys)
    server.body += b" "
    clock.seconds += jwks.MAX_AGE_SECONDS
    with pytest.raises(UnavailableError):
        await keys.find(RS256, "one")


async def test_redirects_and_packed_answers_are_not_followed(keys: IssuerKeys, server: KeyServer, clock: Clock) -> None:
    with run_key_server(TWO) as other:
        server.status, server.headers = 302, {"Location": other.url}
        with pytest.raises(UnavailableError):
            await keys.find(RS256, "two")
        assert other.fetches == 0
    server.status, server.headers = 200, {"Content-Encoding": "gzip"}
    for packed in (gzip.compress(server.body), gzip.compress(b" " * 10_000_000 + server.body)):
        server.body = packed
        clock.seconds += 1
        with pytest.raises(UnavailableError):
            await keys.find(RS256, "one")


BROKEN = [b"", b"x", b"[]", b"{}", b'{"keys": {}}', b'{"keys": "x"}', b"\xff", b'{"keys": [], "keys": []}', b"[" * 100_000, b'{"keys":NaN}']


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: repr(body[:12]))
async def test_an_answer_that_is_no_key_set_is_a_failure(body: bytes, keys: IssuerKeys, server: KeyServer) -> None:
    server.body = body
    with pytest.raises(UnavailableError):
        await keys.find(RS256, "one")


async def test_closing_ends_a_fetch_under_way(server: KeyServer, client: httpx.AsyncClient) -> None:
    server.delay_seconds = 120
    keys = IssuerKeys(server.url, client, ALL)
    waiting = asyncio.create_task(keys.find(RS256, "one"))
    while not server.fetches:
        await asyncio.sleep(0.01)
    await asyncio.wait_for(keys.aclose(), 60)
    with pytest.raises(asyncio.CancelledError):
        await waiting


def algorithms_of(jwk: dict[str, Any], allowed: frozenset[SigningAlgorithm] = ALL) -> set[str]:
    """What a key set of this one key offers."""
    found = KeySet.from_json(json.dumps({"keys": [jwk]}).encode(), allowed)
    return {algorithm.value for algorithm in ALL if found.find(algorithm, jwk.get("kid")) is not None}


def test_a_key_is_for_the_algorithms_of_its_kind() -> None:
    rsa = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert algorithms_of(ONE.jwk(alg=None)) == rsa
    assert algorithms_of(ONE.jwk(alg=None), frozenset({RS256, SigningAlgorithm.ES256})) == {"RS256"}
    for algorithm in rsa:
        assert algorithms_of(ONE.jwk(alg=algorithm)) == {algorithm}
    for algorithm in (*CURVES, "EdDSA"):
        pair = key_pair(algorithm)
        assert algorithms_of(pair.jwk(alg=None)) == algorithms_of(pair.jwk()) == {algorithm}
        assert algorithms_of(pair.jwk(alg="RS256")) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"use": 1},
        {"key_ops": ["sign"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": 1},
        {"kty": "oct", "k": "c2VjcmV0", "alg": None},
        {"kty": "EC", "alg": None},
        {"kty": ["RSA"]},
        {"crv": "P-256"},
        {"n": None},
        {"n": 5},
        {"n": "!"},
        {"n": ""},
        {"e": None},
        {"e": "AA"},
        {"kid": 1},
    ],
    ids=repr,
)
def test_a_key_that_cannot_sign_tokens_is_left_out(changes: dict[str, Any]) -> None:
    assert algorithms_of(ONE.jwk(**changes)) == set()
    both: dict[str, Any] = {"keys": [ONE.jwk(**changes), TWO.jwk(), "x", None, []]}
    assert KeySet.from_json(json.dumps(both).encode(), ALL).find(RS256, "two") is not None


def test_what_is_published_of_a_private_key_is_not_used() -> None:
    assert algorithms_of(ONE.jwk(d="AQAB", k="AQAB", x5u="https://evil.example", key_ops=["verify"])) == {"RS256"}


def test_a_short_key_is_left_out() -> None:
    assert algorithms_of(key_pair("RS256", "short", 1024).jwk()) == set()


def test_a_token_without_a_key_id_needs_the_only_key_for_its_algorithm() -> None:
    def found(*listed: dict[str, Any]) -> bool:
        return KeySet.from_json(json.dumps({"keys": listed}).encode(), ALL).find(RS256, None) is not None

    assert found(ONE.jwk())
    assert found(ONE.jwk(kid=None))
    assert found(ONE.jwk(), TWO.jwk(use="enc"), key_pair("ES256").jwk())
    assert not found(ONE.jwk(), TWO.jwk())
    assert not found()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["keys", "kty", "crv", "n", "e", "x", "y", "kid", "alg", "use"]), inner)
        ),
        max_leaves=30,
    )
)
def test_whatever_is_published_is_read_or_refused(value: Any) -> None:
    for published in (value, {"keys": value}, {"keys": [value, {**ONE.jwk(), **value}]} if isinstance(value, dict) else [value]):
        try:
            KeySet.from_json(json.dumps(published).encode(), ALL)
        except InvalidTextError:
            continue
