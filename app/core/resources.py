"""Resources: what a grant can be given on."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class ResourceType(StrEnum):
    """The levels of the tree: organization -> project -> document or api call."""

    ORGANIZATION = "ORGANIZATION"
    PROJECT = "PROJECT"
    DOCUMENT = "DOCUMENT"
    API_CALL = "API_CALL"

    @property
    def ancestry(self) -> tuple["ResourceType", ...]:
        """This level and those above it, nearest first."""
        return _ANCESTRY[self]


_ANCESTRY = {
    ResourceType.ORGANIZATION: (ResourceType.ORGANIZATION,),
    ResourceType.PROJECT: (ResourceType.PROJECT, ResourceType.ORGANIZATION),
    ResourceType.DOCUMENT: (ResourceType.DOCUMENT, ResourceType.PROJECT, ResourceType.ORGANIZATION),
    ResourceType.API_CALL: (ResourceType.API_CALL, ResourceType.PROJECT, ResourceType.ORGANIZATION),
}


@dataclass(frozen=True, slots=True)
class ResourceRef:
    """Names one resource."""

    type: ResourceType
    id: UUID
