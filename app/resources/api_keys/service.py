"""Rules of API keys: a key holds no more than its maker, lives no longer than the key that made it, and dies at once."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from app.audit.changes import as_told, changes_of
from app.authz.engine import Located
from app.authz.escalation import common_networks, forbid_escalation, forbid_outliving, forbid_wandering, is_later, lie_within, require_fit
from app.authz.memberships import MembershipRepository
from app.core.actors import Actor, ActorType
from app.core.clock import now
from app.core.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, UnauthenticatedError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.keys import HMAC_SHA256, KeyToken, hash_secret, new_token
from app.core.pagination import CursorPage, Page
from app.core.permissions import ROLE_ACTIONS, Role
from app.resources.api_keys.repository import ApiKeyRepository
from app.resources.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyListQuery, ApiKeyRead, ApiKeyRotate, ApiKeyUpdate
from app.unit_of_work import UnitOfWork

# What a key may and where, which nothing else tells once the key is changed.
_MADE: Final = ("actions", "allowed_cidrs", "expires_at", "may_act_for_others", "parent_key_id")


class ApiKeyService:
    """Everything that happens to API keys."""

    def __init__(self, work: UnitOfWork, pepper: bytes) -> None:
        self._work = work
        self._pepper = pepper
        self._keys = ApiKeyRepository(work)

    async def create(self, scope: Located, new: ApiKeyCreate) -> ApiKeyCreated:
        """Make a key. Its token is in the answer and nowhere else.

        Raises:
            InvalidError: the role does not fit the scope, an action is not the role's, or the end lies in the past.
            ForbiddenError: the key would hold or may what its maker does not, or what a key makes would outlive it or work from elsewhere.
        """
        require_fit(scope, new.role)
        if new.actions is not None and (foreign := set(new.actions) - ROLE_ACTIONS[new.role]):
            raise InvalidError(f"{new.role.value} does not carry {', '.join(sorted(foreign))}", pointer="/actions")
        if new.expires_at is not None and new.expires_at <= now():
            raise InvalidError("lies in the past", pointer="/expires_at")
        forbid_escalation(scope.actions, new.role)
        parent = await self._parent(scope)
        if parent is not None:
            forbid_outliving(parent, new.expires_at)
            forbid_wandering(parent, new.allowed_cidrs)
            if new.may_act_for_others and not parent.may_act_for_others:
                raise ForbiddenError("A key that may not act for others makes none that may.", code="escalation")
        moment, token = now(), new_token()
        row = self._keys.insert(
            {
                "id": new_id(),
                "organization_id": scope.organization_id,
                "project_id": scope.project_id,
                "name": new.name,
                "prefix": token.prefix,
                "scope_type": scope.ref.type.value,
                "scope_id": scope.ref.id,
                "role": new.role.value,
                "actions": sorted(set(new.actions)) if new.actions is not None else None,
                "allowed_cidrs": new.allowed_cidrs,
                "may_act_for_others": new.may_act_for_others,
                "parent_key_id": parent.id if parent is not None else None,
                "expires_at": new.expires_at,
                "revoked_at": None,
                "deleted_at": None,
                "last_used_at": None,
                "last_used_ip": None,
                "metadata": new.metadata,
                "created_at": moment,
                "updated_at": moment,
                "created_by_subject": self._work.actor.subject,
                "revision": 1,
            }
        )
        await self._store_secret(row, token)
        actor = Actor(ActorType.API_KEY, str(row.id))
        await MembershipRepository(self._work.session).grant(
            scope.organization_id, scope.project_id, scope.ref, actor, new.role, granted_by=self._work.actor, expires_at=new.expires_at
        )
        self._record(AuditAction.API_KEY_CREATED, scope, row, **_made(row))
        ends = {"expires_at": row.expires_at.isoformat()} if row.expires_at is not None else {}
        self._work.record(AuditAction.MEMBERSHIP_GRANTED, scope, actor=actor.subject, origin="api_key", **_details(row), **ends)
        return ApiKeyCreated(api_key=ApiKeyRead.from_row(row), token=token.written)

    async def list_visible(self, query: ApiKeyListQuery) -> Page[Any] | CursorPage[Any]:
        """The keys whose scope's members the caller manages, revoked ones included."""
        return await self._keys.list_visible(query)

    async def update(self, key: Located, changes: ApiKeyUpdate) -> ApiKeyRead:
        """Rename it, change its end, its networks or its metadata. An earlier end and narrower networks hold for the keys it has made too.

        Raises:
            ConflictError: the key is revoked.
            ForbiddenError: giving it a later end or wider networks would be making a key, and the caller could not make this one.
        """
        row = existing(key)
        values: dict[str, Any] = changes.model_dump(exclude_unset=True)
        values = {name: value for name, value in values.items() if value is not None or name in {"expires_at", "allowed_cidrs"}}
        if not values:
            return ApiKeyRead.from_row(row)
        row = await self._take_turn(key)
        if row.revoked_at is not None:
            raise ConflictError("The key is revoked.", code="key_revoked")
        if changes.expires_at is not None and changes.expires_at <= now():
            raise InvalidError("lies in the past; revoke the key instead", pointer="/expires_at")
        await self._forbid_widening(key, row, values)
        if "expires_at" in values:
            await self._keys.end_grants([row.id], changes.expires_at)
            await self._end_descendants(key, changes.expires_at)
        if values.get("allowed_cidrs") is not None:
            await self._confine_descendants(key, values["allowed_cidrs"])
        changed = await self._keys.update(row.id, values, self._work.expected_revision)
        self._record(AuditAction.API_KEY_UPDATED, key, changed, **changes_of(row, values))
        return ApiKeyRead.from_row(changed)

    async def rotate(self, key: Located, asked: ApiKeyRotate) -> ApiKeyCreated:
        """Give the key a new secret; the old one works on for a while. Id, grants, networks and end stay.

        Raises:
            ConflictError: the key is revoked or has ended.
            ForbiddenError: the caller does not hold what the key holds, or is a key that did not make it.
        """
        row = await self._take_turn(key)
        if not ApiKeyRead.from_row(row).is_active:
            raise ConflictError("The key is revoked or has ended.", code="key_revoked")
        forbid_escalation(key.actions, Role(row.role))
        if self._work.actor.type is ActorType.API_KEY:
            await self._forbid_strangers(row)
        moment, token = now(), new_token()
        await self._store_secret(row, token)
        await self._keys.end_secrets(row.id, token.prefix, moment + timedelta(seconds=asked.overlap_seconds), moment)
        changed = await self._keys.update(row.id, {"prefix": token.prefix}, self._work.expected_revision)
        self._record(
            AuditAction.API_KEY_ROTATED, key, changed, overlap_seconds=asked.overlap_seconds, **changes_of(row, {"prefix": token.prefix})
        )
        return ApiKeyCreated(api_key=ApiKeyRead.from_row(changed), token=token.written)

    async def revoke(self, key: Located) -> ApiKeyRead:
        """End the key, and every key it has made, from the next request on. Revoking again changes nothing."""
        row = await self._take_turn(key)
        if row.revoked_at is None:
            await self._revoke_family(key)
            row = await self._keys.find(row.id)
        return ApiKeyRead.from_row(row)

    async def delete(self, key: Located) -> None:
        """Revoke it and show it no more; the record stays for the audit trail."""
        row = await self._take_turn(key)
        if row.revoked_at is None:
            await self._revoke_family(key)
        await self._keys.update(row.id, {"deleted_at": now()}, None)
        self._record(AuditAction.API_KEY_DELETED, key, row)

    async def _revoke_family(self, key: Located) -> None:
        await self._revoke_all(key, [member for member in await self._keys.find_family(key.row.id) if member.revoked_at is None])

    async def _revoke_all(self, key: Located, members: list[Any]) -> None:
        if not members:
            return
        await self._keys.revoke_all([member.id for member in members], now())
        for member in members:
            self._record(AuditAction.API_KEY_REVOKED, key, member)
            actor = Actor(ActorType.API_KEY, str(member.id))
            self._work.record(AuditAction.MEMBERSHIP_REVOKED, key, actor=actor.subject, origin="api_key", **_details(member))

    async def _end_descendants(self, key: Located, expires_at: datetime | None) -> None:
        family = await self._keys.find_family(key.row.id)
        longer = [member for member in family if member.id != key.row.id and is_later(expires_at=member.expires_at, than=expires_at)]
        if expires_at is None or not longer:
            return
        await self._keys.end_keys([member.id for member in longer], expires_at, now())
        for member in longer:
            self._record(AuditAction.API_KEY_UPDATED, key, member, **changes_of(member, {"expires_at": expires_at}))

    async def _confine_descendants(self, key: Located, networks: list[str]) -> None:
        """Let the keys it has made work from these networks only; what then works from nowhere is revoked."""
        made = [member for member in await self._keys.find_family(key.row.id) if member.id != key.row.id and member.revoked_at is None]
        wider = [member for member in made if not lie_within(member.allowed_cidrs, networks)]
        left = {member.id: common_networks(member.allowed_cidrs, networks) for member in wider}
        await self._revoke_all(key, [member for member in wider if not left[member.id]])
        for member in wider:
            if left[member.id]:
                confined = await self._keys.update(member.id, {"allowed_cidrs": left[member.id]}, None)
                self._record(AuditAction.API_KEY_UPDATED, key, confined, **changes_of(member, {"allowed_cidrs": left[member.id]}))

    async def _forbid_widening(self, key: Located, row: Any, values: dict[str, Any]) -> None:
        """More time, or more networks, is a new key by another name: the rules of making one hold."""
        lives_longer = "expires_at" in values and is_later(expires_at=values["expires_at"], than=row.expires_at)
        works_wider = "allowed_cidrs" in values and not lie_within(values["allowed_cidrs"], row.allowed_cidrs)
        if not lives_longer and not works_wider:
            return
        forbid_escalation(key.actions, Role(row.role))
        if self._work.actor.type is ActorType.API_KEY:
            raise ForbiddenError("A key gives no key, itself included, more time or wider networks.", code="escalation")
        parent = await self._keys.find(row.parent_key_id) if row.parent_key_id is not None else None
        if parent is not None and lives_longer:
            forbid_outliving(parent, values["expires_at"])
        if parent is not None and works_wider:
            forbid_wandering(parent, values["allowed_cidrs"])

    async def _forbid_strangers(self, row: Any) -> None:
        """A key that could get a secret of a key it did not make would have one that does not die with it."""
        family = await self._keys.find_family(UUID(self._work.actor.id))
        if row.id not in {member.id for member in family}:
            raise ForbiddenError("A key gives new secrets only to itself and to keys it has made.", code="escalation")

    async def _parent(self, scope: Located) -> Any:
        """The key that is making a key, if a key is.

        Raises:
            UnauthenticatedError: it has ended since it was shown.
        """
        if self._work.actor.type is not ActorType.API_KEY:
            return None
        await self._keys.take_turns(scope.organization_id)
        parent = await self._keys.find(UUID(self._work.actor.id))
        if not ApiKeyRead.from_row(parent).is_active:
            raise UnauthenticatedError("The API key is not valid.")
        return parent

    async def _take_turn(self, key: Located) -> Any:
        """The key as it is now; until the end of the transaction nobody else ends, changes or rotates it, or makes a key with it."""
        existing(key)
        await self._keys.take_turns(key.organization_id)
        row = await self._keys.find(key.row.id)
        if row.deleted_at is not None:
            raise NotFoundError
        return row

    async def _store_secret(self, row: Any, token: KeyToken) -> None:
        hashed = hash_secret(token.secret, HMAC_SHA256, self._pepper)
        await self._keys.add_secret(row, token.prefix, hashed, HMAC_SHA256, now())

    def _record(self, action: AuditAction, place: Located, row: Any, **details: Any) -> None:
        self._work.record(action, place, **_details(row), **details)


def existing(key: Located) -> Any:
    """The row of a key that was not deleted.

    Raises:
        NotFoundError: it was.
    """
    if key.row.deleted_at is not None:
        raise NotFoundError
    return key.row


def _details(row: Any) -> dict[str, Any]:
    return {"api_key_id": str(row.id), "api_key_prefix": row.prefix, "role": row.role, "name": row.name}


def _made(row: Any) -> dict[str, Any]:
    scope = {"type": row.scope_type, "id": str(row.scope_id)}
    return {"scope": scope, **{name: as_told(getattr(row, name)) for name in _MADE}}
