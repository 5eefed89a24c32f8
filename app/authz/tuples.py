"""Grants and group members as OpenFGA writes them: user, relation, object.

The store holds nothing else. What lies where in the tree comes with each question, from the row that was just read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final
from urllib.parse import quote, unquote
from uuid import UUID

from app.core.actors import Actor, ActorType
from app.core.resources import ResourceRef, ResourceType
from app.models import GroupMember, Membership

PARENT: Final = "parent"
MEMBER: Final = "member"
CONDITION: Final = "non_expired"
CURRENT_TIME: Final = "current_time"
EXPIRES_AT: Final = "expires_at"
GROUP: Final = ActorType.GROUP.value.lower()

# An object may have 256 characters; a group's has its organization before its id.
MAX_ENCODED: Final = 200
_DIGEST: Final = "%-"  # no percent-encoded text has a percent sign before anything but two hexadecimal digits

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class TupleKey:
    """What is unique in a store."""

    user: str
    relation: str
    object: str


@dataclass(frozen=True, slots=True)
class RelationshipTuple:
    """A tuple, and when it ends by itself."""

    key: TupleKey
    expires_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """The form the server takes."""
        written = key_json(self.key)
        if self.expires_at is not None:
            written["condition"] = {"name": CONDITION, "context": {EXPIRES_AT: to_time(self.expires_at)}}
        return written

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "RelationshipTuple":
        """Read what the server answers. A condition this service does not write makes a tuple that equals none of its own."""
        key = TupleKey(written["user"], written["relation"], written["object"])
        condition = written.get("condition")
        if not condition:
            return cls(key)
        try:
            return cls(key, datetime.fromisoformat(condition["context"][EXPIRES_AT]).astimezone(UTC))
        except (KeyError, TypeError, ValueError):
            return cls(key, datetime.min.replace(tzinfo=UTC))


def key_json(key: TupleKey) -> dict[str, Any]:
    """The form the server takes of a tuple without its condition."""
    return {"user": key.user, "relation": key.relation, "object": key.object}


def to_time(moment: datetime) -> str:
    """RFC 3339, to the microsecond."""
    return moment.astimezone(UTC).isoformat()


def encode_id(identifier: str) -> str:
    """An id without any character that means something to OpenFGA; different ids stay different.

    Percent-encoded UTF-8 (RFC 3986), so ``*`` is no wildcard; ids that would be too long that way become their SHA-256.
    """
    encoded = quote(identifier, safe="")
    return encoded if len(encoded) <= MAX_ENCODED else _DIGEST + sha256(identifier.encode()).hexdigest()


def decode_id(encoded: str) -> str | None:
    """The id; None for one that was too long to be written out."""
    return None if encoded.startswith(_DIGEST) else unquote(encoded)


def object_of(ref: ResourceRef) -> str:
    """A resource."""
    return f"{ref.type.value.lower()}:{ref.id}"


def group_object(organization_id: UUID, group_id: str) -> str:
    """A group: known only inside its organization, like everywhere."""
    return f"{GROUP}:{organization_id}/{encode_id(group_id)}"


def user_of(organization_id: UUID, actor: Actor) -> str:
    """An actor as a holder of grants of an organization; a group stands for its members."""
    if actor.type is ActorType.GROUP:
        return f"{group_object(organization_id, actor.id)}#{MEMBER}"
    return f"{actor.type.value.lower()}:{encode_id(actor.id)}"


def parents_of(scopes: Iterable[ResourceRef]) -> list[TupleKey]:
    """That each resource hangs below the next."""
    return [TupleKey(object_of(above), PARENT, object_of(below)) for below, above in pairwise(scopes)]


def grant_tuple(row: Row) -> RelationshipTuple:
    """The tuple of a row of ``memberships``."""
    user = user_of(row["organization_id"], Actor(ActorType(row["actor_type"]), row["actor_id"]))
    resource = object_of(ResourceRef(ResourceType(row["resource_type"]), row["resource_id"]))
    return RelationshipTuple(TupleKey(user, row["role"].lower(), resource), row["expires_at"])


def member_tuple(row: Row) -> RelationshipTuple | None:
    """The tuple of a row of ``group_members``; None for a group in itself, which says nothing and which OpenFGA refuses."""
    member = Actor(ActorType(row["member_type"]), row["member_id"])
    if member == Actor(ActorType.GROUP, row["group_id"]):
        return None
    group = group_object(row["organization_id"], row["group_id"])
    return RelationshipTuple(TupleKey(user_of(row["organization_id"], member), MEMBER, group), row["expires_at"])


# The tables that tuples stand for.
TUPLE_OF: Final = {Membership: grant_tuple, GroupMember: member_tuple}
