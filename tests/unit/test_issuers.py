"""Issuers as they are configured: what is accepted, and each fault told in one line."""

import json
from typing import Any

import pytest

from app.core.issuers import Issuer, SigningAlgorithm
from app.settings import SettingsError, load_settings

GOOD = {"issuer": "https://i.example/", "audience": "saasbase", "jwks_url": "https://i.example/keys"}
SECRET = "geheim-4711"


def load(monkeypatch: pytest.MonkeyPatch, *issuers: Any) -> tuple[Issuer, ...]:
    monkeypatch.setenv("SAASBASE_JWT__ISSUERS", json.dumps(issuers))
    return load_settings().jwt.issuers


def fault(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    monkeypatch.setenv(f"SAASBASE_JWT__{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**GOOD, **changes}.items() if value != "absent"}


def test_there_are_no_issuers_unless_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for nothing in ("", "  ", "[]"):
        monkeypatch.setenv("SAASBASE_JWT__ISSUERS", nothing)
        assert load_settings().jwt.issuers == ()


def test_an_issuer_needs_a_name_an_audience_and_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, GOOD) == (Issuer(issuer="https://i.example/", audience=("saasbase",), jwks_url="https://i.example/keys"),)
    assert load(monkeypatch, changed(audience=["a", "b"]))[0].audience == ("a", "b")
    for name in GOOD:
        told = fault(monkeypatch, "ISSUERS", json.dumps([changed(**{name: "absent"})]))
        assert told == f"SAASBASE_JWT__ISSUERS__0__{name.upper()}: Field required"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"audience": []}, "audience"),
        ({"audience": ""}, "audience"),
        ({"audience": ["a", ""]}, "audience"),
        ({"audience": None}, "AUDIENCE"),
        ({"audience": [1]}, "AUDIENCE"),
        ({"issuer": ""}, "issuer"),
        ({"issuer": None}, "ISSUER"),
        ({"jwks_url": "http://i.example/keys"}, "jwks_url"),
        ({"jwks_url": "http://127.0.0.1.i.example/keys"}, "jwks_url"),
        ({"jwks_url": "http://10.0.0.1/keys"}, "jwks_url"),
        ({"jwks_url": "https:///keys"}, "jwks_url"),
        ({"jwks_url": "https://u:geheim-4711@i.example/keys"}, "jwks_url"),
        ({"jwks_url": "https://i.example:port/keys"}, "jwks_url"),
        ({"jwks_url": "https://i.example/a b"}, "jwks_url"),
        ({"jwks_url": "https://i.example/keys#x"}, "jwks_url"),
        ({"jwks_url": "https://[::1/keys"}, "jwks_url"),
        ({"jwks_url": "file:///etc/keys"}, "jwks_url"),
        ({"jwks_url": "keys"}, "jwks_url"),
        ({"alias": ""}, "alias"),
        ({"alias": "a|b"}, "alias"),
        ({"alias": "a" * 65}, "alias"),
        ({"actor_type": "GROUP"}, "actor_type"),
        ({"actor_type": "API_KEY"}, "actor_type"),
        ({"actor_type": SECRET}, "ACTOR_TYPE"),
        ({"actor_type_claim": ""}, "actor_type_claim"),
        ({"groups_claim": ""}, "groups_claim"),
        ({"scope_prefix": ""}, "scope_prefix"),
        ({"organization_id": SECRET}, "ORGANIZATION_ID"),
        ({"may_act_for_others": ["robot:geheim-4711"]}, "may_act_for_others"),
        ({"may_act_for_others": ["group:g"]}, "may_act_for_others"),
        ({"may_act_for_others": "service:gateway"}, "MAY_ACT_FOR_OTHERS"),
        ({"audiences": ["x"]}, "AUDIENCES: there is no such setting"),
    ],
    ids=repr,
)
def test_a_fault_of_an_issuer_stops_with_one_line(changes: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = fault(monkeypatch, "ISSUERS", json.dumps([changed(**changes)]))
    assert told.startswith("SAASBASE_JWT__ISSUERS__0")
    assert word in told
    assert "\n" not in told
    assert SECRET not in told


@pytest.mark.parametrize("text", [SECRET, "{}", "[1]", '["x"]', "null", json.dumps(GOOD), "[" * 100_000], ids=lambda text: text[:20])
def test_what_is_no_list_of_issuers_stops_with_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fault(monkeypatch, "ISSUERS", text) == "SAASBASE_JWT__ISSUERS: must be a JSON list of objects"


@pytest.mark.parametrize(
    "url", ["http://localhost/keys", "http://127.0.0.1:8080/keys", "http://127.9.9.9/", "http://[::1]:1/", "https://10.0.0.1/"]
)
def test_keys_may_come_over_plain_http_from_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, changed(jwks_url=url))[0].jwks_url == url


def test_several_issuers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(load(monkeypatch, changed(alias="a"), changed(alias="b", issuer="two"))) == 2
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (changed(alias="a"), changed(issuer="two")),
        (changed(), changed(issuer="two")),
        (changed(alias="a"), changed(alias="a", issuer="two")),
        (changed(alias="a"), changed(alias="b")),
    ]
    for pair in pairs:
        told = fault(monkeypatch, "ISSUERS", json.dumps(pair))
        assert told.startswith("SAASBASE_JWT__ISSUERS: ")
        assert "\n" not in told


def test_neither_a_shared_secret_nor_no_signature_can_be_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_JWT__ALGORITHMS", "ES256, EdDSA")
    assert load_settings().jwt.algorithms == (SigningAlgorithm.ES256, SigningAlgorithm.EDDSA)
    for text in ("HS256", "HS384", "HS512", "none", "None", "", "rs256", "RS256,HS256", "ES256K"):
        assert fault(monkeypatch, "ALGORITHMS", text).startswith("SAASBASE_JWT__ALGORITHMS")
    assert not any(algorithm.value.lower().startswith(("hs", "none")) for algorithm in SigningAlgorithm)


def test_the_leeway_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().jwt.leeway_seconds == 30
    for text in ("-1", "301", "x"):
        assert fault(monkeypatch, "LEEWAY_SECONDS", text).startswith("SAASBASE_JWT__LEEWAY_SECONDS: ")
