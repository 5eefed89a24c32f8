"""What the names in AuthZEN's questions stand for here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from app.core.actors import MAX_ACTOR_ID, Actor, ActorType
from app.core.permissions import Action
from app.core.resources import ResourceRef, ResourceType
from app.core.text import InvalidTextError, clean_identifier
from app.resources.authz.authzen.schemas import AccessAction, Entity

Kind = TypeVar("Kind", ActorType, ResourceType)

# `create` has no short form: things of more than one type are created in a project, so only the full name says what is meant.
_SHORT: Final = ("read", "update", "write", "delete", "share")
SHORT_ACTIONS: Final[Mapping[tuple[ResourceType, str], Action]] = MappingProxyType(
    {
        (kind, short): Action(name)
        for kind in ResourceType
        for short in _SHORT
        if (name := f"{kind.value}_{short.upper()}") in Action.__members__
    }
)
_UUID: Final = TypeAdapter(UUID)


class UnknownNameError(ValueError):
    """A name that stands for nothing, so nothing is permitted; the message does not repeat it."""


def subject_type_of(name: str) -> ActorType:
    """The type of an actor, in any case.

    Raises:
        UnknownNameError: there is no such type.
    """
    return _kind_of(ActorType.__members__, name, "subject.type")


def resource_type_of(name: str) -> ResourceType:
    """The type of a resource, in any case.

    Raises:
        UnknownNameError: there is no such type.
    """
    return _kind_of(ResourceType.__members__, name, "resource.type")


def actor_of(subject: Entity) -> Actor:
    """The actor that a subject is.

    Raises:
        UnknownNameError: no actor can be called that.
    """
    try:
        return Actor(subject_type_of(subject.type), clean_identifier(subject.id, MAX_ACTOR_ID))
    except InvalidTextError as error:
        raise UnknownNameError(f"subject.id {error}") from None


def ref_of(resource: Entity) -> ResourceRef:
    """The resource that is named; it need not exist.

    Raises:
        UnknownNameError: no resource can be called that.
    """
    try:
        return ResourceRef(resource_type_of(resource.type), _UUID.validate_python(resource.id))
    except ValidationError:
        raise UnknownNameError("resource.id is not a UUID") from None


def action_of(asked: AccessAction, kind: ResourceType) -> Action:
    """The action, by its full name or by the short one it has on that type of resource, in any case.

    Raises:
        UnknownNameError: there is no such action.
    """
    found = Action.__members__.get(asked.name.upper()) or SHORT_ACTIONS.get((kind, asked.name.lower()))
    if found is None:
        raise UnknownNameError(f"action.name is no action, and short for none on a resource of type {kind.value.lower()}")
    return found


def _kind_of(members: Mapping[str, Kind], name: str, what: str) -> Kind:
    found = members.get(name.upper())
    if found is None:
        raise UnknownNameError(f"{what} is none of {', '.join(members).lower()}")
    return found
