"""SQL of API keys and their secrets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Row, delete, or_, select, update

from app.core.errors import NotFoundError
from app.core.pagination import CursorPage, Page
from app.db.listing import Listing, equals, wire_columns
from app.db.repository import Repository
from app.db.writes import insert_into
from app.http.bounded import ArrayQuery
from app.models import ApiKey, ApiKeySecret, Membership, Organization
from app.resources.api_keys.schemas import ApiKeyListQuery
from app.unit_of_work import UnitOfWork


class ApiKeyRepository(Repository):
    """Statements over ``api_keys`` and ``api_key_secrets``."""

    model = ApiKey
    listing: ClassVar[Listing] = Listing(
        ApiKey,
        {"created_at": ApiKey.created_at},
        {
            "organization_id": equals(ApiKey.organization_id),
            "scope_type": equals(ApiKey.scope_type),
            "scope_id": equals(ApiKey.scope_id),
        },
        ApiKey.deleted_at.is_(None),
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def add_secret(self, key: Any, prefix: str, hashed: str, algorithm: str, at: datetime) -> None:
        """Write the hash of a new secret."""
        values = {
            "prefix": prefix,
            "api_key_id": key.id,
            "organization_id": key.organization_id,
            "hash": hashed,
            "hash_algorithm": algorithm,
            "created_at": at,
            "expires_at": None,
        }
        await self._session.execute(insert_into(ApiKeySecret), values)

    async def end_secrets(self, key_id: UUID, newest: str, at: datetime, moment: datetime) -> None:
        """Let the secret before the newest one end at ``at``, and forget those that have ended or are older still."""
        others = ApiKeySecret.api_key_id == key_id, ApiKeySecret.prefix != newest
        await self._session.execute(
            delete(ApiKeySecret).where(*others, or_(ApiKeySecret.expires_at.is_not(None), ApiKeySecret.expires_at <= moment))
        )
        await self._session.execute(update(ApiKeySecret).where(*others).values(expires_at=at))

    async def find(self, key_id: UUID) -> Row[Any]:
        """One key of this organization.

        Raises:
            NotFoundError: it is gone.
        """
        row: Row[Any] | None = (await self._session.execute(select(*wire_columns(ApiKey)).where(ApiKey.id == key_id))).one_or_none()
        if row is None:
            raise NotFoundError
        return row

    async def take_turns(self, organization_id: UUID) -> None:
        """Wait for others who make, end or rotate keys of the organization.

        Else a key that is being revoked could make another one that its revocation does not find. Rows that only refer to the
        organization can be written meanwhile.
        """
        statement = select(Organization.id).where(Organization.id == organization_id)
        await self._session.execute(statement.with_for_update(key_share=True))

    async def find_family(self, key_id: UUID) -> list[Row[Any]]:
        """The key and every key that was made by it, by one made by it, and so on."""
        top = select(ApiKey.id).where(ApiKey.id == key_id).cte("family", recursive=True)
        family = top.union(select(ApiKey.id).join(top, ApiKey.parent_key_id == top.c.id))
        statement = select(*wire_columns(ApiKey)).where(ApiKey.id.in_(select(family.c.id)))
        return list((await self._session.execute(statement)).all())

    async def revoke_all(self, key_ids: list[UUID], at: datetime) -> None:
        """Revoke keys that are not yet; their grants go at once."""
        revoked = update(ApiKey).where(ApiKey.id.in_(key_ids), ApiKey.revoked_at.is_(None))
        await self._session.execute(revoked.values(revoked_at=at, updated_at=at, revision=ApiKey.revision + 1))
        names = [str(key_id) for key_id in key_ids]
        await self._session.execute(delete(Membership).where(Membership.actor_type == "API_KEY", Membership.actor_id.in_(names)))

    async def end_grants(self, key_ids: list[UUID], expires_at: datetime | None) -> None:
        """Let the grants of keys end with them."""
        names = [str(key_id) for key_id in key_ids]
        grants = update(Membership).where(Membership.actor_type == "API_KEY", Membership.actor_id.in_(names))
        await self._session.execute(grants.values(expires_at=expires_at))

    async def end_keys(self, key_ids: list[UUID], expires_at: datetime, at: datetime) -> None:
        """Let keys end, with their grants, together with the one that made them."""
        ended = update(ApiKey).where(ApiKey.id.in_(key_ids))
        await self._session.execute(ended.values(expires_at=expires_at, updated_at=at, revision=ApiKey.revision + 1))
        await self.end_grants(key_ids, expires_at)

    async def list_all(self) -> Sequence[Row[Any]]:
        """Every key of this organization and its projects, oldest first, for who runs the service."""
        statement = select(*wire_columns(ApiKey)).where(ApiKey.deleted_at.is_(None)).order_by(ApiKey.created_at, ApiKey.id)
        return (await self._session.execute(statement)).all()

    async def list_visible(self, query: ApiKeyListQuery) -> Page[Any] | CursorPage[Any]:
        """The keys whose scope's members the actor manages, oldest first."""
        request = query.request("created_at", list="api-keys", **query.model_dump(mode="json", exclude=set(ArrayQuery.model_fields)))
        return await self.page(query.given(), request, self._work.visible_rows(self.model))
