"""What claims mean: for us and for now, or refused; who the bearer is, and what the token is made for."""

from typing import Any
from uuid import UUID

import pytest

from app.authn.claims import ClaimsReader, RefusedTokenError
from app.core.actors import Actor, ActorType, Identity, TokenGroups
from app.core.issuers import Issuer
from app.core.permissions import Action

AT = 1_800_000_000
ORGANIZATION = UUID("01890000-0000-7000-8000-000000000000")
GOOD = {"iss": "https://issuer.example", "aud": "saasbase", "sub": "alice", "exp": AT + 60}


def reader(id_prefix: str = "", leeway_seconds: float = 30, **fields: Any) -> ClaimsReader:
    issuer = {"issuer": "https://issuer.example", "audience": ("saasbase",), "jwks_url": "https://issuer.example/keys", **fields}
    return ClaimsReader(Issuer(**issuer), id_prefix, leeway_seconds)


def is_valid(changes: dict[str, Any], **fields: Any) -> bool:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value != "absent"}
    try:
        reader(**fields).require_valid(claims, AT)
    except RefusedTokenError:
        return False
    return True


def identity(changes: dict[str, Any], id_prefix: str = "", **fields: Any) -> Identity:
    return reader(id_prefix, **fields).identity({**GOOD, **changes})


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"iss": "absent"}, False),
        ({"iss": "https://issuer.example/"}, False),
        ({"iss": ["https://issuer.example"]}, False),
        ({"aud": "absent"}, False),
        ({"aud": ""}, False),
        ({"aud": []}, False),
        ({"aud": "SaaSBase"}, False),
        ({"aud": "saasbase2"}, False),
        ({"aud": ["others", "saasbase"]}, True),
        ({"aud": ["others"]}, False),
        ({"aud": ["saasbase", 1]}, False),
        ({"aud": {"saasbase": 1}}, False),
        ({"aud": None}, False),
    ],
)
def test_a_token_is_of_its_issuer_and_for_its_audience(changes: dict[str, Any], valid: bool) -> None:
    assert is_valid(changes) is valid


def test_one_of_several_audiences_is_enough() -> None:
    several = ("saasbase", "api://saasbase")
    assert is_valid({"aud": "api://saasbase"}, audience=several)
    assert is_valid({"aud": ["x", "api://saasbase"]}, audience=several)
    assert not is_valid({"aud": "x"}, audience=several)


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({"exp": "absent"}, False),
        ({"exp": AT - 29}, True),
        ({"exp": AT - 29.999}, True),
        ({"exp": AT - 30}, False),
        ({"exp": AT - 31}, False),
        ({"nbf": AT + 30}, True),
        ({"nbf": AT + 30.001}, False),
        ({"nbf": AT + 31}, False),
        ({"iat": AT + 30}, True),
        ({"iat": AT + 31}, False),
        ({"iat": 0, "nbf": 0}, True),
    ],
)
def test_time_is_kept_within_the_leeway(changes: dict[str, Any], valid: bool) -> None:
    assert is_valid(changes) is valid


def test_without_leeway_a_token_ends_at_its_moment() -> None:
    assert is_valid({"exp": AT + 0.001, "nbf": AT, "iat": AT}, leeway_seconds=0)
    assert not is_valid({"exp": AT}, leeway_seconds=0)
    assert not is_valid({"nbf": AT + 1}, leeway_seconds=0)


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", [None, True, "", str(AT + 60), [], {}, float("inf"), float("-inf"), float("nan"), 10**400, -(10**400)], ids=repr
)
def test_a_moment_is_a_finite_number(claim: str, value: Any) -> None:
    assert not is_valid({claim: value})


def test_the_subject_is_the_actor() -> None:
    assert identity({}) == Identity(Actor(ActorType.USER, "alice"), "jwt")
    assert identity({}, actor_type=ActorType.SERVICE).actor == Actor(ActorType.SERVICE, "alice")
    assert identity({"sub": "auth0|Zoë 日本"}, "corp|").actor == Actor(ActorType.USER, "corp|auth0|Zoë 日本")
    assert identity({"sub": "x" * 256}).actor.id == "x" * 256


@pytest.mark.parametrize("subject", [None, "", "  ", " alice", "alice\t", "a\x00b", "a\ud800", "x" * 257, 7, ["alice"], {"a": 1}], ids=repr)
def test_a_subject_that_is_no_actors_id_is_refused(subject: Any) -> None:
    for changes in ({"sub": subject}, {"act": {"sub": subject}}):
        with pytest.raises(RefusedTokenError):
            identity(changes)


def test_the_prefix_counts_in_the_length_of_an_id() -> None:
    assert len(identity({"sub": "x" * 251}, "corp|").actor.id) == 256
    with pytest.raises(RefusedTokenError):
        identity({"sub": "x" * 252}, "corp|")


def test_a_claim_can_tell_the_actors_type() -> None:
    named = {"actor_type_claim": "kind", "actor_type": ActorType.SERVICE}
    for value, kind in {"user": "USER", "SERVICE": "SERVICE", "Agent": "AGENT"}.items():
        assert identity({"kind": value}, **named).actor.type is ActorType(kind)
    assert identity({}, **named).actor.type is ActorType.SERVICE
    assert identity({"kind": "agent"}).actor.type is ActorType.USER
    refused: list[Any] = ["", "robot", "group", "api_key", "GROUP", None, 1, ["user"], " user"]
    for value in refused:
        with pytest.raises(RefusedTokenError):
            identity({"kind": value}, **named)


def test_groups_count_in_the_issuers_organization_only() -> None:
    groups = {"groups": ["devs", "/ops", "devs"], "roles": ["admins"]}
    assert identity(groups).groups is None
    assert identity({}, organization_id=ORGANIZATION).groups is None
    assert identity(groups, organization_id=ORGANIZATION).groups == TokenGroups(ORGANIZATION, frozenset({"devs", "/ops"}))
    assert identity(groups, organization_id=ORGANIZATION, groups_claim="roles").groups == TokenGroups(ORGANIZATION, frozenset({"admins"}))
    odd = {"groups": ["", " devs", "a\x00", "a\ud800", "x" * 257, "ok"]}
    assert identity(odd, organization_id=ORGANIZATION).groups == TokenGroups(ORGANIZATION, frozenset({"ok"}))
    for value in ("devs", {"devs": 1}, ["devs", 1], [["devs"]], None, 7):
        with pytest.raises(RefusedTokenError):
            identity({"groups": value}, organization_id=ORGANIZATION)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, set()),
        ({"scope": ""}, set()),
        ({"scope": "openid profile"}, set()),
        ({"scope": "openid sb:document:read"}, {Action.DOCUMENT_READ}),
        ({"scope": "sb:DOCUMENT_READ sb:Api_Call:Write"}, {Action.DOCUMENT_READ, Action.API_CALL_WRITE}),
        ({"scope": "sb:api:call:read sb:unknown sb: sb"}, {Action.API_CALL_READ}),
        ({"scp": ["sb:project:read", "x"]}, {Action.PROJECT_READ}),
        ({"scp": "sb:project:read x"}, {Action.PROJECT_READ}),
        ({"scope": "sb:document:read", "scp": ["sb:project:read"]}, {Action.DOCUMENT_READ, Action.PROJECT_READ}),
        ({"scope": "SB:document:read document:read sb document_read"}, set()),
    ],
)
def test_scopes_with_the_prefix_narrow(claims: dict[str, Any], expected: set[Action]) -> None:
    assert identity(claims, scope_prefix="sb:").only_actions == frozenset(expected)
    assert identity(claims).only_actions is None


@pytest.mark.parametrize("value", [None, 1, {"a": 1}, [1]], ids=repr)
@pytest.mark.parametrize("claim", ["scope", "scp"])
def test_scopes_that_cannot_be_read_are_refused(claim: str, value: Any) -> None:
    with pytest.raises(RefusedTokenError):
        identity({claim: value}, scope_prefix="sb:")


def test_who_acts_is_the_actor_and_the_subject_the_principal() -> None:
    found = identity(
        {"act": {"sub": "tagger", "act": {"sub": "earlier"}}, "groups": ["devs"], "scope": "sb:document:read"},
        "corp|",
        organization_id=ORGANIZATION,
        scope_prefix="sb:",
        may_act_for_others=("agent:tagger",),
    )
    principal = Identity(Actor(ActorType.USER, "corp|alice"), "jwt", groups=TokenGroups(ORGANIZATION, frozenset({"devs"})))
    acting = Actor(ActorType.AGENT, "corp|tagger")
    assert found == Identity(acting, "jwt", only_actions=frozenset({Action.DOCUMENT_READ}), on_behalf_of=principal)


def test_an_actor_may_tell_its_type_too() -> None:
    found = identity({"kind": "service", "act": {"sub": "billing", "kind": "service"}}, actor_type_claim="kind")
    assert found.actor == Actor(ActorType.SERVICE, "billing")
    assert found.principal == Actor(ActorType.SERVICE, "alice")
    assert identity({"kind": "service", "act": {"sub": "billing"}}, actor_type_claim="kind").actor.type is ActorType.AGENT


@pytest.mark.parametrize(
    "act",
    [None, "tagger", [], ["tagger"], {}, {"sub": None}, {"act": {"sub": "x"}}, {"sub": "x", "iss": "https://other.example"}],
    ids=repr,
)
def test_an_act_claim_that_names_nobody_is_refused(act: Any) -> None:
    with pytest.raises(RefusedTokenError):
        identity({"act": act})


def test_an_act_claim_may_name_the_issuer_itself() -> None:
    assert identity({"act": {"sub": "x", "iss": GOOD["iss"]}}).actor == Actor(ActorType.AGENT, "x")


def test_who_may_act_for_others_is_listed() -> None:
    listed = {"may_act_for_others": ("service:gateway",), "actor_type_claim": "kind"}
    assert identity({"sub": "gateway", "kind": "service"}, "corp|", **listed).may_act_for_others
    assert not identity({"sub": "gateway", "kind": "user"}, "corp|", **listed).may_act_for_others
    assert not identity({"sub": "gateway2", "kind": "service"}, "corp|", **listed).may_act_for_others
    assert not identity({"sub": "gateway", "kind": "service", "act": {"sub": "x"}}, "corp|", **listed).may_act_for_others
