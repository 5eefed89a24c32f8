"""The floor: the least that this stack can do for the same answers. FastAPI, a response model, ONE statement of asyncpg.

Neither authentication nor authorization nor an access log; the tables are ours. Started by ``benchmarks.servers``.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
from fastapi import FastAPI
from pydantic import BaseModel

POOL_SIZE: Final = 8
COLUMNS: Final = (
    "id, organization_id, project_id, name, operation_key, status, requested_at, request_payload, metadata, created_at, revision"
)
READ_PROJECT: Final = (
    "SELECT id, organization_id, name, metadata, created_at, updated_at, created_by_subject, revision FROM projects WHERE id = $1"
)
ADD_CALL: Final = f"""
WITH project AS (SELECT organization_id, id FROM projects WHERE id = $2),
call AS (
    INSERT INTO api_calls (id, organization_id, project_id, name, operation_key, request_digest, status, requested_at, request_payload,
                           response_payload, metadata, created_at, updated_at, created_by_subject, revision)
    SELECT $1, organization_id, id, $3, $4, repeat('0', 64), 'RECEIVED', now(), $5, '{{}}', '{{}}', now(), now(), 'user:alice', 1
    FROM project
    RETURNING {COLUMNS}),
event AS (
    INSERT INTO audit_events (id, occurred_at, organization_id, project_id, actor_type, actor_id, auth_method, action, outcome,
                              resource_type, resource_id, ip, user_agent, request_id, details)
    SELECT $6, now(), organization_id, project_id, 'USER', 'alice', 'header', 'API_CALL_CREATED', 'SUCCESS', 'API_CALL', id, '127.0.0.1',
           'floor', repeat('0', 32), '{{}}' FROM call)
SELECT {COLUMNS} FROM call
"""
LIST_CALLS: Final = f"SELECT {COLUMNS} FROM api_calls WHERE project_id = $1 ORDER BY requested_at, id LIMIT $2"


class ProjectRead(BaseModel):
    """A project."""

    id: UUID
    organization_id: UUID
    name: str
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    created_by_subject: str
    revision: int


class CallCreate(BaseModel):
    """A call that has arrived."""

    name: str
    operation_key: str
    request_payload: dict[str, Any]


class CallRead(CallCreate):
    """A call on record."""

    id: UUID
    organization_id: UUID
    project_id: UUID
    status: str
    requested_at: datetime
    metadata: dict[str, Any]
    created_at: datetime
    revision: int


class CallPage(BaseModel):
    """The first page."""

    items: list[CallRead]
    has_more: bool


def make_app() -> FastAPI:
    """The application over the database that the environment names."""
    pool: asyncpg.Pool

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal pool
        pool = asyncpg.create_pool(os.environ["FLOOR_DATABASE"], min_size=POOL_SIZE, max_size=POOL_SIZE, init=_prepare, reset=_keep)
        async with pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/api/projects/{project_id}")
    async def read_project(project_id: UUID) -> ProjectRead:
        return ProjectRead(**await pool.fetchrow(READ_PROJECT, project_id))

    @app.post("/api/projects/{project_id}/api-calls", status_code=201)
    async def create_call(project_id: UUID, new: CallCreate) -> CallRead:
        given = (new.name, new.operation_key, new.request_payload)
        return CallRead(**await pool.fetchrow(ADD_CALL, uuid4(), project_id, *given, uuid4()))

    @app.get("/api/api-calls")
    async def list_calls(project_id: UUID, limit: int) -> CallPage:
        rows = await pool.fetch(LIST_CALLS, project_id, limit + 1)
        return CallPage(items=[CallRead(**row) for row in rows[:limit]], has_more=len(rows) > limit)

    return app


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


async def _keep(_: asyncpg.Connection) -> None:
    """Nothing can leak from one request to the next, so a connection goes back to the pool without another round trip."""
