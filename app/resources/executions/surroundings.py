"""What executions that start may name: executions to hang below, and things to work on. Looked up once, for one start or for many."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from uuid import UUID

from app.authz.engine import Located
from app.core.errors import ForbiddenError, InvalidError
from app.core.permissions import READ_ACTIONS, Action
from app.core.resources import ResourceRef, ResourceType
from app.resources.executions.repository import ExecutionRepository
from app.resources.executions.schemas import StartFields
from app.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Parents that may be named, each with the root of its tree; and targets."""

    roots: Mapping[UUID, UUID]
    targets: AbstractSet[ResourceRef]

    def root_for(self, new: StartFields) -> UUID | None:
        """The root of the tree that an execution joins; none when it names no parent.

        Raises:
            InvalidError: its parent or its target is not where it has to be.
        """
        if new.parent_execution_id is not None and new.parent_execution_id not in self.roots:
            raise InvalidError("names no execution of this organization", pointer="/parent_execution_id")
        if new.target is not None and new.target not in self.targets:
            raise InvalidError("names nothing in this project", pointer="/target_id")
        return self.roots[new.parent_execution_id] if new.parent_execution_id is not None else None


async def look_around(work: UnitOfWork, project: Located, starts: Sequence[StartFields]) -> Surroundings:
    """What these starts name and may name: a parent in the organization and a target in the project, if the caller may read them.

    The project itself and what lies above it may be targets, too: of those no start tells more than where it begins.
    At most three statements, however many starts.
    """
    executions = ExecutionRepository(work)
    parents = {new.parent_execution_id for new in starts if new.parent_execution_id is not None}
    roots = await executions.roots_of(parents) if parents and _may(work, Action.EXECUTION_READ) else {}
    targets = set(project.scopes)
    for type_ in (ResourceType.DOCUMENT, ResourceType.API_CALL):
        named = {new.target_id for new in starts if new.target_id is not None and new.target_type is type_}
        if named and _may(work, READ_ACTIONS[type_]):
            targets |= await executions.things_in(project.id, type_, named)
    return Surroundings(roots, targets)


def _may(work: UnitOfWork, action: Action) -> bool:
    """Whether the caller's credential may take the action at all; on what, the next statement itself decides."""
    try:
        work.confine_lists(action)
    except ForbiddenError:
        return False
    return True
