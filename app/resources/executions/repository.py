"""SQL of executions: of one, and of many in as many statements as of one."""

import json
from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Row, String, Uuid, cast, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.authz.tree import KEYS, model_of
from app.core.clock import now
from app.core.errors import NotFoundError, PreconditionFailedError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.resources import ResourceRef, ResourceType
from app.db.errors import violated_constraint
from app.db.functions import each_array, each_text, each_text_in, json_at, moment_at, text_at, written_json, written_moment
from app.db.listing import Filter, Listing, equals, wire_columns
from app.db.repository import Repository
from app.models import Execution, ExecutionEvent
from app.resources.executions.lifecycle import require_running
from app.resources.executions.schemas import ExecutionListQuery, ExecutionStatus
from app.unit_of_work import UnitOfWork

_INSERTED_AT_ONCE: Final = 1000
_ATTRIBUTES: Final = {"metadata": "metadata_"}  # the declarative base keeps the other name for itself
# What an end may tell, beside its time.
_TOLD_TEXTS: Final = ("status", "operation", "kind", "model_provider", "model_name", "session_id", "agent_version")
_TOLD_JSON: Final = ("input", "output", "metadata", "usage", "cost")
_COLUMNS: Final = {column.name: column for column in wire_columns(Execution)}
_OF_A_PARENT: Final = [_COLUMNS[name] for name in ("id", "root_execution_id")]
_OF_AN_END: Final = [
    _COLUMNS[name] for name in ("id", "organization_id", "project_id", "status", "correlation_id", "target_type", "target_id", "metadata")
]
# Rows that lack different values are one statement all the same.
_INSERT: Final = insert(Execution).execution_options(render_nulls=True)
_ASKED: Final = select(cast(each_text("asked").c.value, Uuid()))


def _has_tag(tag: BindParameter[Any]) -> ColumnElement[bool]:
    tags = each_text_in(Execution.tags)
    return exists(select(tags.c.value).where(tags.c.value == tag))


def _asking(ids: Collection[UUID]) -> dict[str, str]:
    return {"asked": json.dumps([id_.hex for id_ in ids])}


def _written(execution_id: UUID, values: Mapping[str, Any]) -> list[str | None]:
    texts = [values.get(name) for name in _TOLD_TEXTS]
    return [execution_id.hex, written_moment(values["ended_at"]), *texts, *(written_json(values.get(name)) for name in _TOLD_JSON)]


class ExecutionRepository(Repository):
    """Statements over ``executions``."""

    model = Execution
    listing: ClassVar[Listing] = Listing(
        Execution,
        {
            "started_at": Execution.started_at,
            "ended_at": Execution.ended_at,
            "operation": Execution.operation,
            "status": Execution.status,
        },
        {
            "organization_id": equals(Execution.organization_id),
            "project_id": equals(Execution.project_id),
            "status": equals(Execution.status),
            "target_resource_type": equals(Execution.target_type),
            "correlation_id": equals(Execution.correlation_id),
            "parent_execution_id": equals(Execution.parent_execution_id),
            "operation": equals(Execution.operation),
            "model_provider": equals(Execution.model_provider),
            "model_name": equals(Execution.model_name),
            "kind": equals(Execution.kind),
            "session_id": equals(Execution.session_id),
            "tag": Filter(_has_tag, type_=String()),
        },
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def things_in(self, project_id: UUID, type_: ResourceType, ids: Collection[UUID]) -> set[ResourceRef]:
        """Which of these documents, or API calls, the project has, of those that the actor was admitted to."""
        key = KEYS[type_]
        statement = self._work.only_visible(select(key), model_of(type_)).where(key.in_(_ASKED), key.class_.project_id == project_id)
        rows = await self._session.execute(statement, _asking(ids))
        return {ResourceRef(type_, id_) for id_ in rows.scalars()}

    async def roots_of(self, execution_ids: Collection[UUID]) -> dict[UUID, UUID]:
        """The roots of those executions that the actor was admitted to."""
        statement = self._work.only_visible(select(*_OF_A_PARENT), Execution).where(Execution.id.in_(_ASKED))
        rows = await self._session.execute(statement, _asking(execution_ids))
        return {row.id: row.root_execution_id or row.id for row in rows}

    async def lock(self, execution_ids: Collection[UUID], project_id: UUID) -> dict[UUID, SimpleNamespace]:
        """Those of the executions that the project has, with what ending them takes. Until the transaction ends nobody else ends them.

        Locked in one order, so that of two who lock the same ones the second waits for the first, and neither for the other.
        """
        statement = select(*_OF_AN_END).where(Execution.id.in_(_ASKED), Execution.project_id == project_id)
        statement = statement.order_by(Execution.id).with_for_update(key_share=True)
        rows = await self._session.execute(statement, _asking(execution_ids))
        return {row.id: SimpleNamespace(**row._mapping) for row in rows}  # noqa: SLF001 - the public name of a row's mapping

    async def insert_all(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows; parents stand before their children. A thousand at a time: other requests have their turn between.

        Raises:
            NotFoundError: the project is gone.
            ConflictError: a unique value is taken.
        """
        for start in range(0, len(rows), _INSERTED_AT_ONCE):
            values = [
                {_ATTRIBUTES.get(name, name): value for name, value in row.items()} for row in rows[start : start + _INSERTED_AT_ONCE]
            ]
            try:
                await self._session.execute(_INSERT, values)
            except IntegrityError as error:
                raise self.conflict(violated_constraint(error)) from None

    async def end_all(self, ended: Mapping[UUID, Mapping[str, Any]]) -> None:
        """End executions that were locked while they ran; what an end does not tell stays as it was. One statement."""
        item = each_array("ended").c.value
        told: list[ColumnElement[Any]] = [cast(text_at(item, 0), Uuid()).label("id"), moment_at(item, 1).label("ended_at")]
        told += [text_at(item, place).label(name) for place, name in enumerate(_TOLD_TEXTS, 2)]
        told += [json_at(item, place).label(name) for place, name in enumerate(_TOLD_JSON, 2 + len(_TOLD_TEXTS))]
        ends = select(*told).cte("ends").prefix_with("MATERIALIZED")  # else SQLite reads every execution first
        columns = {_ATTRIBUTES.get(name, name): name for name in (*_TOLD_TEXTS, *_TOLD_JSON)}
        values: dict[str, Any] = {key: func.coalesce(ends.c[name], getattr(Execution, key)) for key, name in columns.items()}
        values |= {"ended_at": ends.c.ended_at, "updated_at": now(), "revision": Execution.revision + 1}
        statement = update(Execution).where(Execution.id == ends.c.id, Execution.status == ExecutionStatus.RUNNING.value).values(values)
        await self._session.execute(statement, {"ended": json.dumps([_written(id_, values) for id_, values in ended.items()])})

    async def change_running(self, execution_id: UUID, values: dict[str, Any], expected_revision: int | None) -> Row[Any]:
        """Change, or end, an execution that runs. Decided by the database, so of many that would end it at once one does.

        Raises:
            ConflictError: it has ended already.
        """
        try:
            return await self.update(execution_id, values, expected_revision, Execution.status == ExecutionStatus.RUNNING.value)
        except (NotFoundError, PreconditionFailedError):
            await self.require_running(execution_id)
            raise

    async def require_running(self, execution_id: UUID) -> None:
        """Until the transaction ends nobody ends the execution.

        Raises:
            NotFoundError: it is gone.
            ConflictError: it has ended already.
        """
        statement = select(Execution.status).where(Execution.id == execution_id).with_for_update()
        status = (await self._session.execute(statement)).scalar_one_or_none()
        if status is None:
            raise NotFoundError
        require_running(status)

    async def trace(self, root_id: UUID, limit: int) -> Sequence[Row[Any]]:
        """The executions of one tree that the actor may read, oldest first; one statement."""
        statement = self._work.only_visible(select(*wire_columns(Execution)), Execution).where(Execution.root_execution_id == root_id)
        rows: Sequence[Row[Any]] = (await self._session.execute(statement.order_by(Execution.started_at, Execution.id).limit(limit))).all()
        return rows

    async def list_visible(self, query: ExecutionListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The executions the actor was admitted to."""
        return await self.page(query.given(), request, self._work.visible_rows(self.model))


class ExecutionEventRepository(Repository):
    """Statements over ``execution_events``."""

    model = ExecutionEvent
    listing: ClassVar[Listing] = Listing(
        ExecutionEvent, {"occurred_at": ExecutionEvent.occurred_at}, {"execution_id": equals(ExecutionEvent.execution_id)}
    )

    async def list_of(self, execution_id: UUID, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The events of one execution."""
        return await self.page({"execution_id": execution_id}, request)
