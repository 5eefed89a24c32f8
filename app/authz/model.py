"""The authorization model for OpenFGA, generated from the role matrix and the resource tree: there is one truth, in two languages.

Roles are relations that are assigned; a type has those of its own level and of the levels below it. Actions are unions of the roles
that carry them, and come from the parent as well. Every type knows every action, so one question asks for everything at once.
"""

from typing import Any, Final

from app.authz.tuples import CONDITION, CURRENT_TIME, EXPIRES_AT, GROUP, MEMBER, PARENT
from app.core.actors import ActorType
from app.core.permissions import Action, Role, roles_with
from app.core.resources import ResourceType

SCHEMA_VERSION: Final = "1.1"
_TIMESTAMP: Final = {"type_name": "TYPE_NAME_TIMESTAMP"}
# What a server adds to a model when it answers it, beside empty values.
_ADDED: Final = frozenset({"id", "module", "source_info"})


def relation_of(word: Role | Action) -> str:
    """The relation of a role or an action."""
    return word.value.lower()


def make_model() -> dict[str, Any]:
    """The model in the form ``POST /stores/{id}/authorization-models`` takes."""
    actors = [{"type": kind.value.lower(), "relations": {}} for kind in ActorType if kind is not ActorType.GROUP]
    return {
        "schema_version": SCHEMA_VERSION,
        "type_definitions": [*actors, _type(GROUP, {MEMBER: {"this": {}}}, {MEMBER: _holders()}), *map(_resource_type, ResourceType)],
        "conditions": {
            CONDITION: {
                "name": CONDITION,
                "expression": f"{CURRENT_TIME} < {EXPIRES_AT}",
                "parameters": {CURRENT_TIME: _TIMESTAMP, EXPIRES_AT: _TIMESTAMP},
            }
        },
    }


def is_same_model(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two models mean the same, whatever a server has added to one of them."""
    return bool(_bare(one) == _bare(other))


def _resource_type(level: ResourceType) -> dict[str, Any]:
    above = level.ancestry[1] if len(level.ancestry) > 1 else None
    roles = [role for role in Role if role.fits(level)]
    relations: dict[str, Any] = {relation_of(role): {"this": {}} for role in roles}
    assigned: dict[str, Any] = {relation_of(role): _holders() for role in roles}
    if above is not None:
        relations[PARENT], assigned[PARENT] = {"this": {}}, [{"type": above.value.lower()}]
    for action in Action:
        relations[relation_of(action)] = _union(action, roles, has_parent=above is not None)
    return _type(level.value.lower(), relations, assigned)


def _union(action: Action, roles: list[Role], *, has_parent: bool) -> dict[str, Any]:
    children: list[dict[str, Any]] = [{"computedUserset": {"relation": relation_of(role)}} for role in roles_with(action) if role in roles]
    if has_parent:
        inherited = {"tupleset": {"relation": PARENT}, "computedUserset": {"relation": relation_of(action)}}
        children.append({"tupleToUserset": inherited})
    return children[0] if len(children) == 1 else {"union": {"child": children}}


def _holders() -> list[dict[str, str]]:
    """Every kind of actor, for good or until a moment."""
    kinds = [{"type": GROUP, "relation": MEMBER} if kind is ActorType.GROUP else {"type": kind.value.lower()} for kind in ActorType]
    return [{**kind, **ending} for kind in kinds for ending in ({}, {"condition": CONDITION})]


def _type(name: str, relations: dict[str, Any], assigned: dict[str, Any]) -> dict[str, Any]:
    metadata = {"relations": {relation: {"directly_related_user_types": kinds} for relation, kinds in assigned.items()}}
    return {"type": name, "relations": relations, "metadata": metadata}


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        bare = {name: _bare(inner) for name, inner in value.items() if name not in _ADDED}
        return {name: inner for name, inner in bare.items() if name == "this" or inner not in (None, "", [], {})}
    return [_bare(inner) for inner in value] if isinstance(value, list) else value
