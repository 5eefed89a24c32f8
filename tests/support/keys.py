"""API keys as tests use them: made in one line, shown as a caller, changed behind the service's back."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table, select, update

from app.models import ApiKey, Membership
from tests.conftest import Caller, Service
from tests.support.database import behind

KEYS: Table = ApiKey.__table__  # type: ignore[assignment] # a mapped class's table is one
GRANTS: Table = Membership.__table__  # type: ignore[assignment]


def after(**lapse: float) -> str:
    """A moment to come, as it is sent."""
    return (datetime.now(UTC) + timedelta(**lapse)).isoformat()


async def make_key(caller: Caller, scope_type: str, scope_id: str, role: str, **body: Any) -> dict[str, Any]:
    """A new key and its token."""
    wanted = {"name": "key", "scope_type": scope_type, "scope_id": scope_id, "role": role, **body}
    made: dict[str, Any] = (await caller.post("/api-keys", wanted, 201)).json()
    return made


def shows(service: Service, token: str, **headers: str) -> Caller:
    """A caller who has nothing but a token."""
    return Caller(service.client, {"Authorization": f"Bearer {token}", **headers})


async def key_of(service: Service, caller: Caller, scope_type: str, scope_id: str, role: str, **body: Any) -> tuple[Caller, dict[str, Any]]:
    """Who shows a new key, and the key as the service describes it."""
    made = await make_key(caller, scope_type, scope_id, role, **body)
    return shows(service, made["token"]), made["api_key"]


async def change_key(service: Service, key_id: str, **values: Any) -> None:
    """Change the row of a key as time or a fault would."""
    async with behind(service.runtime.context.database) as connection:
        await connection.execute(update(KEYS).where(KEYS.c.id == UUID(key_id)).values(**values))


async def end_of_grant(service: Service, key_id: str) -> datetime | None:
    """When the grant of a key ends."""
    async with behind(service.runtime.context.database) as connection:
        found = await connection.execute(select(GRANTS.c.expires_at).where(GRANTS.c.actor_id == key_id))
        end: datetime | None = found.scalar_one()
        return end
