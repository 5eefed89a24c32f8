"""Wire shapes of many starts and ends at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from app.core.errors import AppError
from app.http.problems import PartProblem, part_problem, status_of, unreadable_part
from app.http.schemas import NO_FLAG, Command, Schema
from app.resources.executions.schemas import (
    ExecutionCancel,
    ExecutionComplete,
    ExecutionFail,
    ExecutionStatus,
    StartFields,
)

MAX_ITEMS: Final = 500
ItemIndex = Annotated[int, Field(ge=0, lt=MAX_ITEMS), NO_FLAG]


class StartItem(StartFields):
    """Something begins to run in the project."""

    op: Literal["start"]
    parent_index: ItemIndex | None = None
    """The execution it is a part of, when that is started by an earlier item: that item's place, from 0."""

    @model_validator(mode="after")
    def _has_one_parent(self) -> Self:
        if self.parent_index is not None and self.parent_execution_id is not None:
            raise ValueError("parent_index and parent_execution_id are not given together")
        return self


class _EndItem(Command):
    execution_id: UUID | None = None
    """Which execution of the project ends; or else `execution_index`."""
    execution_index: ItemIndex | None = None
    """The one that an earlier item starts: that item's place, from 0."""

    @model_validator(mode="after")
    def _ends_one(self) -> Self:
        if (self.execution_id is None) == (self.execution_index is None):
            raise ValueError("either execution_id or execution_index is given")
        return self


class CompleteItem(ExecutionComplete, _EndItem):
    """An execution ended well."""

    op: Literal["complete"]


class FailItem(ExecutionFail, _EndItem):
    """An execution ended badly."""

    op: Literal["fail"]


class CancelItem(ExecutionCancel, _EndItem):
    """An execution was stopped."""

    op: Literal["cancel"]


EndItem = CompleteItem | FailItem | CancelItem
Item = Annotated[StartItem | EndItem, Field(discriminator="op")]
_UNKNOWN_OP: Final = "op is one of start, complete, fail and cancel"  # pydantic's own message repeats whatever was sent


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item that is of none of the shapes, and why."""

    faults: Sequence[Any]


def _or_unreadable(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """One item that cannot be read does not cost the sender the others."""
    try:
        return read(value)
    except ValidationError as error:
        return Unreadable([_fault(fault) for fault in error.errors(include_input=False, include_url=False)])


def _fault(fault: Any) -> dict[str, Any]:
    message = _UNKNOWN_OP if fault["type"] == "union_tag_invalid" else fault["msg"]
    return {"type": fault["type"], "loc": fault["loc"][1:], "msg": message}  # a place begins with the shape that ``op`` chose


class ExecutionBatch(Command):
    """What began and what ended, in this order."""

    items: Annotated[
        list[Annotated[Item, WrapValidator(_or_unreadable)]],
        Field(
            min_length=1,
            max_length=MAX_ITEMS,
            examples=[
                [
                    {"op": "start", "operation": "tag-document", "kind": "AGENT"},
                    {"op": "start", "operation": "chat", "kind": "LLM", "parent_index": 0},
                    {"op": "complete", "execution_index": 1, "usage": {"input_tokens": 1200, "output_tokens": 80}},
                    {"op": "fail", "execution_id": "01980a3c-0000-7000-8000-000000000008", "error_code": "timeout"},
                ]
            ],
        ),
    ]

    @property
    def told(self) -> Sequence[StartItem | EndItem | Unreadable]:
        """The items as they were read."""
        return self.items


@dataclass(frozen=True, slots=True)
class Done:
    """An item that was done: the execution it is about, and how that stands after it."""

    id: UUID
    status: ExecutionStatus
    is_new: bool


Outcome = Done | AppError | Unreadable


class ExecutionState(Schema):
    """An execution after its item."""

    id: UUID
    status: ExecutionStatus


class BatchResult(Schema):
    """What became of one item."""

    index: int
    """The item's place, from 0."""
    status: int
    """What the item alone would have been answered: 201 started, 200 ended, 404, 409, 422."""
    execution: ExecutionState | None = None
    error: PartProblem | None = None

    @classmethod
    def of(cls, index: int, outcome: Outcome) -> Self:
        """The wire form of what became of an item."""
        place = "items", index
        if isinstance(outcome, Unreadable):
            return cls(index=index, status=422, error=unreadable_part(outcome.faults, *place))
        if isinstance(outcome, AppError):
            return cls(index=index, status=status_of(outcome), error=part_problem(outcome, *place))
        return cls(index=index, status=201 if outcome.is_new else 200, execution=ExecutionState(id=outcome.id, status=outcome.status))


class BatchResults(Schema):
    """What became of the items, in their order."""

    results: Annotated[
        list[BatchResult],
        Field(
            examples=[
                [
                    {"index": 0, "status": 201, "execution": {"id": "01980a3c-0000-7000-8000-000000000011", "status": "RUNNING"}},
                    {"index": 1, "status": 201, "execution": {"id": "01980a3c-0000-7000-8000-000000000012", "status": "RUNNING"}},
                    {"index": 2, "status": 200, "execution": {"id": "01980a3c-0000-7000-8000-000000000012", "status": "COMPLETED"}},
                    {
                        "index": 3,
                        "status": 409,
                        "error": {"code": "already_ended", "detail": "The execution has ended: it is COMPLETED."},
                    },
                ]
            ]
        ),
    ]
