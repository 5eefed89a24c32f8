"""Tokens against a verifier with real keys: which prove an identity, and that whatever else is shown proves nothing."""

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.authn.jwt import MAX_TOKEN, JwtVerifier
from app.authn.resolver import REFUSED
from app.core.actors import Actor, ActorType
from app.core.errors import UnauthenticatedError
from app.core.issuers import Issuer, SigningAlgorithm
from tests.support.issuers import AUDIENCE, NAME, KeyPair, KeyServer, claims, encode, key_pair, part, run_key_server, token

pytestmark = pytest.mark.anyio

ONE = key_pair()
PAIRS = [*(key_pair(algorithm.value, f"{algorithm.value}-key") for algorithm in SigningAlgorithm), ONE]


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    with run_key_server(*PAIRS) as running:
        yield running


@pytest.fixture
async def verifier(keys: KeyServer) -> AsyncIterator[JwtVerifier]:
    made = make_verifier(Issuer(issuer=NAME, audience=(AUDIENCE,), jwks_url=keys.url))
    yield made
    await made.aclose()


def make_verifier(*issuers: Issuer, algorithms: tuple[SigningAlgorithm, ...] = tuple(SigningAlgorithm)) -> JwtVerifier:
    return JwtVerifier(issuers, algorithms, 30)


async def proves(verifier: JwtVerifier, text: str) -> bool:
    """Whether the token proves an identity; it is refused in one way only."""
    try:
        await verifier.verify(text, None)
    except UnauthenticatedError as refusal:
        error = refusal
    else:
        return True
    assert (error.code, error.detail, error.__cause__) == ("unauthenticated", REFUSED, None)
    return False


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.kid)
async def test_each_algorithm_proves_the_subject(pair: KeyPair, verifier: JwtVerifier) -> None:
    identity = await verifier.verify(token("alice", key=pair), None)
    assert (identity.actor, identity.method) == (Actor(ActorType.USER, "alice"), "jwt")


async def test_a_token_of_another_library_is_read(verifier: JwtVerifier) -> None:
    assert await proves(verifier, jwt.encode(claims(), ONE.private, "RS256", headers={"kid": "one"}))


@pytest.mark.parametrize("changes", [{"iss": "https://other.example"}, {"iss": None}, {"iss": [NAME]}, {"aud": "others"}, {"aud": None}])
async def test_a_token_of_others_or_for_others_is_refused(changes: dict[str, Any], verifier: JwtVerifier) -> None:
    assert not await proves(verifier, token(**changes))


@pytest.mark.parametrize("lapse", [{"exp": -31}, {"exp": -3600}, {"nbf": 60}, {"iat": 60}])
async def test_a_token_out_of_its_time_is_refused(lapse: dict[str, int], verifier: JwtVerifier) -> None:
    moment = int(time.time())
    assert not await proves(verifier, ONE.sign({**claims(), **{claim: moment + seconds for claim, seconds in lapse.items()}}))
    assert not await proves(verifier, token(exp=None))
    assert await proves(verifier, token(exp=moment - 20, nbf=moment + 20, iat=moment + 20))


async def test_a_token_without_a_signature_is_refused(verifier: JwtVerifier) -> None:
    header, body, signature = token().split(".")
    for algorithm in ("none", "None", "NONE", "nOnE", "", None):
        bare = part({"typ": "JWT", "kid": "one", "alg": algorithm})
        for forged in (f"{bare}.{body}.", f"{bare}.{body}", f"{bare}.{body}.{signature}", f"{bare}.{body}.AA"):
            assert not await proves(verifier, forged)
    assert not await proves(verifier, f"{header}.{body}.")
    assert not await proves(verifier, f"{part({'kid': 'one'})}.{body}.{signature}")


async def test_a_public_key_is_no_shared_secret(verifier: JwtVerifier) -> None:
    number = int(base64.urlsafe_b64decode(ONE.jwk()["n"] + "==").hex(), 16)
    secrets = [ONE.pem(), ONE.pem().strip(), json.dumps(ONE.jwk()).encode(), ONE.jwk()["n"].encode(), number.to_bytes(256, "big"), b""]
    for algorithm, digest in {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}.items():
        for secret in secrets:
            signed = f"{part({'typ': 'JWT', 'alg': algorithm, 'kid': 'one'})}.{part(claims())}"
            assert not await proves(verifier, f"{signed}.{encode(hmac.new(secret, signed.encode(), digest).digest())}")


@pytest.mark.parametrize("claimed", [algorithm.value for algorithm in SigningAlgorithm])
async def test_a_key_is_used_for_its_own_algorithm_only(claimed: str, verifier: JwtVerifier) -> None:
    for pair in PAIRS:
        used = KeyPair(
            pair.private, claimed if claimed[:2] in {"RS", "PS"} and pair.kid[:2] in {"RS", "PS", "on"} else pair.algorithm, pair.kid
        )
        assert await proves(verifier, used.sign(claims(), alg=claimed)) is (claimed == pair.algorithm)


async def test_an_algorithm_that_is_not_configured_is_refused(keys: KeyServer) -> None:
    issuer = Issuer(issuer=NAME, audience=(AUDIENCE,), jwks_url=keys.url)
    verifier = make_verifier(issuer, algorithms=(SigningAlgorithm.ES256,))
    keys.publish(ONE.jwk(alg=None), key_pair("ES256"))
    assert not await proves(verifier, token(key=ONE))
    assert await proves(verifier, token(key=key_pair("ES256")))
    await verifier.aclose()


async def test_a_key_for_encryption_signs_nothing(verifier: JwtVerifier, keys: KeyServer) -> None:
    keys.publish(ONE.jwk(use="enc"))
    assert not await proves(verifier, token())


async def test_a_changed_token_is_refused(verifier: JwtVerifier) -> None:
    header, body, signature = token("alice").split(".")
    assert await proves(verifier, f"{header}.{body}.{signature}")
    other = token("mallory", key=key_pair("RS256", "mallory")).split(".")
    forged = [
        f"{header}.{part(claims('mallory'))}.{signature}",
        f"{header}.{body}.{other[2]}",
        f"{part({'alg': 'RS256', 'kid': 'one'})}.{body}.{signature}",
        f"{header}.{body}.{signature[:-4]}",
        f"{header}.{body}.{signature}AAAA",
        f"{header}.{body}.{'A' * len(signature)}",
        KeyPair(key_pair("RS256", "mallory").private, "RS256", "one").sign(claims()),
    ]
    for text in forged:
        assert not await proves(verifier, text)


async def test_odd_base64_is_refused(verifier: JwtVerifier) -> None:
    header, body, signature = token().split(".")
    assert await proves(verifier, f"{header}.{body}.{signature}")
    odd = [
        f"{header}=.{body}.{signature}",
        f"{header}.{body}=.{signature}",
        f"{header}.{body}.{signature}==",
        f"{header}.{body}.{signature[:-1]}{'B' if signature[-1] != 'B' else 'C'}",  # bits that decode to nothing
        f"{header}.{body}.{signature.replace('_', '/').replace('-', '+')}+",
        f"{header}.{body}\n.{signature}",
        f"{header}. {body}.{signature}",
        f"{header}.{body}.{signature}.",
        f".{header}.{body}.{signature}",
        f"{header}.{body}.{signature}.{signature}.{signature}",
        f"{header}..{signature}",
        "..",
        ".",
        "",
        "A.A.A",
        "é.é.é",
        "\udcff.a.a",
    ]
    for text in odd:
        assert not await proves(verifier, text), text


async def test_a_member_named_twice_is_refused_even_when_signed(verifier: JwtVerifier) -> None:
    good = json.dumps(claims())
    assert await proves(verifier, ONE.sign_bytes(good.encode()))
    assert not await proves(verifier, ONE.sign_bytes(good.replace('"sub"', '"sub": "mallory", "sub"').encode()))
    for text in (
        b"",
        b"[]",
        b"1",
        b"null",
        b"\xff",
        b"{",
        good.encode("utf-16"),
        b'{"a":' * 3000,
        b'{"exp": NaN}',
        b'{"exp": ' + b"9" * 5000,
    ):
        assert not await proves(verifier, ONE.sign_bytes(text))
    twice = encode(b'{"alg":"none","typ":"JWT","kid":"one","alg":"RS256"}')
    signed = f"{twice}.{part(claims())}"
    assert not await proves(verifier, f"{signed}.{encode(jwt.get_algorithm_by_name('RS256').sign(signed.encode(), ONE.private))}")


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", None])
async def test_the_type_of_a_token_may_be_named(kind: str | None, verifier: JwtVerifier) -> None:
    assert await proves(verifier, token(header={"typ": kind}))


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": ""},
        {"typ": 1},
        {"kid": 1},
        {"kid": ["one"]},
        {"kid": ""},
        {"kid": "two"},
        {"kid": "../../one"},
        {"alg": ["RS256"]},
        {"alg": {"RS256": 1}},
        {"alg": "rs256"},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
    ],
    ids=repr,
)
async def test_a_header_we_do_not_understand_is_refused(header: dict[str, Any], verifier: JwtVerifier) -> None:
    pair = KeyPair(ONE.private, "RS256", "one")
    assert not await proves(verifier, pair.sign(claims(), **header))


async def test_what_a_token_brings_along_is_not_even_looked_at(verifier: JwtVerifier, keys: KeyServer) -> None:
    mallory = key_pair("RS256", "mallory")
    with run_key_server(mallory) as evil:
        brought: list[dict[str, Any]] = [
            {"jku": evil.url},
            {"x5u": evil.url},
            {"jwk": mallory.jwk()},
            {"x5c": [encode(mallory.pem())]},
            {"kid": evil.url},
            {"kid": "one", "jku": evil.url, "jwk": mallory.jwk(kid="one")},
        ]
        for header in brought:
            assert not await proves(verifier, mallory.sign(claims(iss=NAME), **header))
            assert await proves(verifier, ONE.sign(claims(), **{**header, "kid": "one"}))
        assert not await proves(verifier, mallory.sign(claims(iss=evil.url), jku=evil.url))
        assert evil.fetches == 0
    assert set(keys.paths) == {"/keys"}


async def test_a_token_without_a_key_id_is_accepted_when_there_is_one_key(verifier: JwtVerifier, keys: KeyServer) -> None:
    keys.publish(ONE)
    assert await proves(verifier, token(header={"kid": None}))


async def test_a_token_without_a_key_id_is_refused_when_there_are_two(verifier: JwtVerifier, keys: KeyServer) -> None:
    keys.publish(ONE, key_pair("RS256", "two"))
    assert not await proves(verifier, token(header={"kid": None}))


async def test_each_issuer_has_keys_and_subjects_of_its_own() -> None:
    two = key_pair("RS256", "two")
    with run_key_server(ONE) as first, run_key_server(two) as second:
        issuers = (
            Issuer(issuer=NAME, audience=(AUDIENCE,), jwks_url=first.url, alias="corp"),
            Issuer(issuer="https://two.example", audience=("two",), jwks_url=second.url, alias="partner", actor_type=ActorType.SERVICE),
        )
        verifier = make_verifier(*issuers)
        assert (await verifier.verify(token("alice"), None)).actor == Actor(ActorType.USER, "corp|alice")
        good: dict[str, Any] = {"iss": "https://two.example", "aud": "two"}
        assert (await verifier.verify(token("alice", key=two, **good), None)).actor == Actor(ActorType.SERVICE, "partner|alice")
        assert not await proves(verifier, token(key=two))
        assert not await proves(verifier, token(key=KeyPair(two.private, "RS256", "one")))
        assert not await proves(verifier, token(key=ONE, **good))
        assert not await proves(verifier, token(aud="two"))
        assert not await proves(verifier, token(key=two, iss="https://two.example"))
        await verifier.aclose()


async def test_a_token_may_be_long_but_not_endless(verifier: JwtVerifier) -> None:
    room = MAX_TOKEN - len(token(more="")) - 8
    fitting = token(more="x" * (room * 3 // 4))
    assert MAX_TOKEN - 32 < len(fitting) <= MAX_TOKEN
    assert await proves(verifier, fitting)
    assert not await proves(verifier, token(more="x" * (room * 3 // 4 + 48)))


async def test_the_log_tells_the_reason_and_nothing_of_the_token(verifier: JwtVerifier, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [token("geheim-4711", exp=1), token("geheim-4711", aud="geheim-4711"), token("x", header={"kid": "geheim-4711"})]
    for text in shown:
        assert not await proves(verifier, text)
        assert text.split(".")[2] not in caplog.text
    assert "geheim-4711" not in caplog.text
    reasons = [record for record in caplog.records if record.name == "app.authn.jwt"]
    assert [record.levelno for record in reasons] == [logging.DEBUG] * 3
    assert "expired" in reasons[0].getMessage()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([NAME, AUDIENCE, "RS256", "one", "JWT"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku"]), json_values)
bodies = st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "act", "groups", "scope", "scp", "kind"]), json_values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(header=headers, body=bodies)
async def test_whatever_a_signed_token_says_is_read_or_refused(header: Any, body: Any, verifier: JwtVerifier) -> None:
    await proves(verifier, ONE.sign({**claims(), **body}, **header))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text() | st.from_regex(r"\A[A-Za-z0-9_\-=.]{0,80}\Z") | st.lists(st.binary(max_size=60).map(encode), max_size=5).map(".".join)
)
async def test_garbage_is_refused(text: str, verifier: JwtVerifier) -> None:
    assert not await proves(verifier, text)
