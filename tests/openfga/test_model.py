"""The model: generated from the role matrix, equal to the stored copy, and to the matrix in a real server."""

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from app.authz.model import is_same_model, make_model, relation_of
from app.authz.openfga_client import OpenFGAClient
from app.authz.tuples import RelationshipTuple, TupleKey, object_of, parents_of
from app.core.permissions import ROLE_ACTIONS, Action, Role
from app.core.resources import ResourceRef, ResourceType
from tests.support.openfga import OpenFGAServer

pytestmark = pytest.mark.anyio

STORED = Path(__file__).parent / "model.json"


def test_the_model_is_the_stored_one() -> None:
    """``python -m app authz model > tests/openfga/model.json`` renews it: look at what changes, stores need it too."""
    assert json.loads(STORED.read_text()) == make_model()


def test_a_role_and_an_action_are_never_the_same_relation() -> None:
    names = [relation_of(word) for word in (*Role, *Action)]
    assert len(names) == len(set(names))
    assert all(len(name) <= 36 for name in names), "it is a check's correlation id, too"


async def test_a_server_answers_the_model_it_was_given(openfga_server: OpenFGAServer) -> None:
    client = OpenFGAClient(openfga_server.url, openfga_server.new_store(), timeout_seconds=30)
    found = await client.find_model()
    assert found is not None
    assert is_same_model(found, make_model())
    other = make_model()
    other["type_definitions"][-1]["relations"].pop(relation_of(Action.METADATA_WRITE))
    assert not is_same_model(found, other)
    await client.aclose()


async def test_every_combination_equals_the_matrix(openfga_server: OpenFGAServer) -> None:
    """12 roles on every level they fit, asked on every level for every action: for whoever holds it, and nothing for anybody else."""
    client = OpenFGAClient(openfga_server.url, openfga_server.new_store(), timeout_seconds=60)
    refs = {level: ResourceRef(level, uuid4()) for level in ResourceType}
    held = [(role, level) for role in Role for level in ResourceType if role.fits(level)]
    grants = [TupleKey(f"user:{role.value}-{level.value}", relation_of(role), object_of(refs[level])) for role, level in held]
    await client.write([RelationshipTuple(key) for key in grants])
    relations = [relation_of(action) for action in Action]
    combinations = 0
    for role, level in held:
        for asked in ResourceType:
            parents = parents_of([refs[above] for above in asked.ancestry])
            told = await client.allowed(f"user:{role.value}-{level.value}", object_of(refs[asked]), relations, parents, datetime.now(UTC))
            expected = ROLE_ACTIONS[role] if level in asked.ancestry else frozenset()
            assert told == {relation_of(action) for action in expected}, (role, level, asked)
            combinations += len(relations)
    assert combinations == 27 * 4 * 22
    await client.aclose()
