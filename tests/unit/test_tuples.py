"""Ids in OpenFGA's notation: valid, different when they differ, and readable again."""

import re
from datetime import UTC, datetime
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.authz.tuples import MAX_ENCODED, RelationshipTuple, TupleKey, decode_id, encode_id, group_object, member_tuple, user_of
from app.core.actors import MAX_ACTOR_ID, Actor, ActorType

TENANT = UUID(int=7)
# pkg/tuple/tuple.go and openfga.pb.validate.go
VALID_USER = re.compile(r"[^:#\s\x00*]+:[^:#\s\x00*]+(#[^:#\s\x00*]+)?")
# Whatever means something to OpenFGA, more often than chance would have it.
_ids = st.text(st.sampled_from(" #:@%*/|-~.\t\n\u2028\x7f") | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_ACTOR_ID)


@settings(max_examples=500, deadline=None, database=None)
@given(identifier=_ids, kind=st.sampled_from(ActorType))
def test_every_id_is_valid_and_short_enough(identifier: str, kind: ActorType) -> None:
    user, group = user_of(TENANT, Actor(kind, identifier)), group_object(TENANT, identifier)
    assert VALID_USER.fullmatch(user), user
    assert len(user) <= 512
    assert VALID_USER.fullmatch(group)
    assert len(group) <= 256
    assert user.isascii()


@settings(max_examples=500, deadline=None, database=None)
@given(one=_ids, other=_ids)
def test_different_ids_stay_different(one: str, other: str) -> None:
    assert (encode_id(one) == encode_id(other)) is (one == other)


@settings(max_examples=500, deadline=None, database=None)
@given(identifier=_ids)
def test_an_id_is_read_back_unless_it_is_too_long_to_write_out(identifier: str) -> None:
    is_too_long = sum(len(quote(letter, safe="")) for letter in identifier) > MAX_ENCODED
    assert decode_id(encode_id(identifier)) == (None if is_too_long else identifier)


@pytest.mark.parametrize(
    ("one", "other"),
    [("*", "%2A"), ("a b", "a%20b"), ("%-", "%25-"), ("é", "e\u0301"), ("A", "a"), ("x" * 201, "x" * 202), ("a/b", "a%2Fb")],
)
def test_ids_that_look_alike_stay_apart(one: str, other: str) -> None:
    assert encode_id(one) != encode_id(other)


def test_nobody_is_everybody() -> None:
    """``user:*`` would be OpenFGA's name for every user."""
    assert user_of(TENANT, Actor(ActorType.USER, "*")) == "user:%2A"


def test_a_group_is_known_by_its_organization() -> None:
    names = {user_of(UUID(int=n), Actor(ActorType.GROUP, "devs")) for n in range(3)}
    assert len(names) == 3
    assert user_of(TENANT, Actor(ActorType.GROUP, "a b")) == f"group:{TENANT}/a%20b#member"


def test_a_group_in_itself_is_no_tuple() -> None:
    row = {"organization_id": TENANT, "group_id": "g", "member_type": "GROUP", "member_id": "g", "expires_at": None}
    assert member_tuple(row) is None
    assert member_tuple({**row, "member_type": "USER"}) is not None


def test_a_tuple_is_read_as_it_was_written() -> None:
    key = TupleKey("user:a", "org_owner", "organization:o")
    for ends in (None, datetime(2026, 5, 4, 3, 2, 1, 7, tzinfo=UTC)):
        assert RelationshipTuple.from_json(RelationshipTuple(key, ends).to_json()) == RelationshipTuple(key, ends)


@pytest.mark.parametrize("context", [None, {}, {"expires_at": "soon"}, {"expires_at": 5}])
def test_a_condition_of_somebody_else_is_equal_to_no_end(context: object) -> None:
    written = {"user": "user:a", "relation": "r", "object": "o:1", "condition": {"name": "x", "context": context}}
    found = RelationshipTuple.from_json(written)
    assert found.expires_at is not None
    assert found.expires_at.year == 1
