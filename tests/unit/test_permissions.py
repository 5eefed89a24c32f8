"""The role matrix, against the counts and the rows of the contract."""

import pytest

from app.core.permissions import READ_ACTIONS, ROLE_ACTIONS, SHARE_ACTIONS, Action, Role, actions_of, roles_with
from app.core.resources import ResourceType

COUNTS = dict(zip(Role, (22, 16, 6, 18, 12, 5, 6, 4, 2, 6, 4, 2), strict=True))
READS = {Action.PROJECT_READ, Action.DOCUMENT_READ, Action.API_CALL_READ, Action.EXECUTION_READ, Action.METADATA_READ}
ORGANIZATION_LEVEL = {Action.ORGANIZATION_READ, Action.ORGANIZATION_UPDATE, Action.ORGANIZATION_DELETE, Action.PROJECT_CREATE}
ENDS = {Action.PROJECT_DELETE, Action.DOCUMENT_DELETE, Action.API_CALL_DELETE, Action.DOCUMENT_SHARE, Action.API_CALL_SHARE}


@pytest.mark.parametrize("role", Role)
def test_a_role_carries_as_many_actions_as_the_contract_counts(role: Role) -> None:
    assert len(ROLE_ACTIONS[role]) == COUNTS[role]


def test_the_matrix_is_the_one_of_the_contract() -> None:
    every = set(Action)
    assert len(every) == 22
    expected = {
        Role.ORG_OWNER: every,
        Role.ORG_ADMIN: every - ENDS - {Action.ORGANIZATION_DELETE},
        Role.ORG_MEMBER: READS | {Action.ORGANIZATION_READ},
        Role.PROJECT_OWNER: every - ORGANIZATION_LEVEL,
        Role.PROJECT_EDITOR: every - ORGANIZATION_LEVEL - ENDS - {Action.MEMBER_MANAGE},
        Role.PROJECT_VIEWER: READS,
    }
    for leaf in ("DOCUMENT", "API_CALL"):
        viewer = {Action[f"{leaf}_READ"], Action.METADATA_READ}
        editor = viewer | {Action[f"{leaf}_WRITE"], Action.METADATA_WRITE}
        expected[Role[f"{leaf}_VIEWER"]] = viewer
        expected[Role[f"{leaf}_EDITOR"]] = editor
        expected[Role[f"{leaf}_OWNER"]] = editor | {Action[f"{leaf}_DELETE"], Action[f"{leaf}_SHARE"]}
    assert {role: set(actions) for role, actions in ROLE_ACTIONS.items()} == expected


def test_the_roles_with_an_action_are_those_that_carry_it() -> None:
    for action in Action:
        assert set(roles_with(action)) == {role for role in Role if action in ROLE_ACTIONS[role]}
        assert Role.ORG_OWNER in roles_with(action)


def test_roles_add_up() -> None:
    assert actions_of(frozenset()) == frozenset()
    assert actions_of(frozenset({Role.DOCUMENT_VIEWER, Role.API_CALL_VIEWER})) == {
        Action.DOCUMENT_READ,
        Action.API_CALL_READ,
        Action.METADATA_READ,
    }
    assert actions_of(frozenset(Role)) == set(Action)


def test_a_role_fits_its_level_and_those_above() -> None:
    above = {
        "ORG": {ResourceType.ORGANIZATION},
        "PROJECT": {ResourceType.ORGANIZATION, ResourceType.PROJECT},
        "DOCUMENT": {ResourceType.ORGANIZATION, ResourceType.PROJECT, ResourceType.DOCUMENT},
        "API_CALL": {ResourceType.ORGANIZATION, ResourceType.PROJECT, ResourceType.API_CALL},
    }
    for role in Role:
        assert {level for level in ResourceType if role.fits(level)} == above[role.value.rpartition("_")[0]]


def test_whoever_may_share_a_resource_may_read_it() -> None:
    for level in ResourceType:
        for role in roles_with(SHARE_ACTIONS[level]):
            if role.fits(level):
                assert READ_ACTIONS[level] in ROLE_ACTIONS[role] or role.level is not level


def test_the_matrix_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ROLE_ACTIONS[Role.ORG_MEMBER] = frozenset(Action)  # type: ignore[index]
