"""API keys as proof of identity: looked up by prefix, compared in constant time, never remembered between two requests."""

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any, Final, Protocol, cast
from uuid import UUID

from sqlalchemy import Table, bindparam, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute

from app.authn.resolver import REFUSED
from app.core.actors import Actor, ActorType, Identity
from app.core.clock import now
from app.core.errors import MalformedCredentialError, UnauthenticatedError
from app.core.keys import hash_secret, read_token
from app.core.permissions import Action
from app.db.confinement import Tenants
from app.db.engine import Database
from app.db.functions import word, written_uuid
from app.db.lookups import Lookup
from app.db.wanted import Found, Proof, ProofLookup, Wanted
from app.models import ApiKey, ApiKeySecret
from app.models.audit_event import MAX_IP

_KEYS: Final = cast("Table", ApiKey.__table__)
_SECRETS: Final = cast("Table", ApiKeySecret.__table__)
_ROW: Final = (
    select(
        _SECRETS.c.hash.label("proof_hash"),
        _SECRETS.c.expires_at.label("proof_secret_expires_at"),
        _KEYS.c.id.label("proof_id"),
        *(_KEYS.c[name].label(f"proof_{name}") for name in ("actions", "allowed_cidrs", "may_act_for_others", "expires_at", "revoked_at")),
    )
    .join_from(_SECRETS, _KEYS, _KEYS.c.id == _SECRETS.c.api_key_id)
    .where(_SECRETS.c.prefix == bindparam("prefix"))
)
_BY_PREFIX: Final = Lookup(_ROW, is_short=True)
_ROWS: Final = _ROW.cte("proof")
# The database compares too, only to look for nothing on behalf of who shows a wrong secret: what counts is the comparison below.
PROOF: Final = Proof(_ROWS, _ROWS.c.proof_hash == bindparam("shown"), word(ActorType.API_KEY.value), written_uuid(_ROWS.c.proof_id))
_MARK_USED: Final = (  # another process may have written a later use already
    update(_KEYS)
    .where(_KEYS.c.id == bindparam("key_id"), or_(_KEYS.c.last_used_at.is_(None), _KEYS.c.last_used_at < bindparam("used_at")))
    .values(last_used_at=bindparam("used_at"), last_used_ip=bindparam("used_ip"))
)


async def find_key_id(database: Database, prefix: str) -> UUID | None:
    """Which key has a secret with this public prefix. Says nothing about who may know it."""
    async with database.open_read(Tenants.of_row(ApiKeySecret.prefix, prefix)) as connection:
        return (await connection.execute(select(_SECRETS.c.api_key_id).where(_SECRETS.c.prefix == prefix))).scalar_one_or_none()


@dataclass(slots=True)
class KeyUses:
    """When each key was last used, collected in memory and written in batches: no write on a request's way."""

    _uses: dict[Any, tuple[datetime, str | None]] = field(default_factory=dict)

    def note(self, key_id: Any, address: str | None) -> None:
        """The key is being used now."""
        self._uses[key_id] = (now(), address[:MAX_IP] if address is not None else None)

    async def write(self, database: Database) -> int:
        """Write what was collected, in one transaction; returns how many keys. What could not be written is kept for the next time."""
        uses, self._uses = self._uses, {}
        if uses:
            rows = [{"key_id": key, "used_at": at, "used_ip": address} for key, (at, address) in sorted(uses.items())]
            try:
                async with database.for_jobs.writer.begin() as connection:
                    await connection.execute(_MARK_USED, rows)
            except BaseException:
                self._uses = uses | self._uses
                raise
        return len(uses)


class Locator(Protocol):
    """Whoever knows what an actor holds on a row."""

    def locating_for(self, proof: Proof, key: InstrumentedAttribute[Any]) -> ProofLookup:
        """The look-up of a proof that also finds a row by a unique column, given as ``key``, with what counts on it ``at`` a moment."""


class KeyVerifier:
    """Turns a bearer token into the identity of a key."""

    def __init__(self, database: Database, pepper: bytes, locator: Locator) -> None:
        self.uses = KeyUses()
        self._database = database
        self._pepper = pepper
        self._locator = locator

    async def verify(self, token_text: str, address: str | None, wanted: Wanted | None = None) -> Identity:
        """The identity of the key.

        Malformed, unknown, wrong, expired and revoked keys, and callers from an address the key does not allow, all get the
        same answer after the same comparison. What the request wants is looked for in the same statement, and kept only for who
        is believed.

        Raises:
            UnauthenticatedError: the token proves nothing.
        """
        token = read_token(token_text)
        if token is None:
            raise MalformedCredentialError(REFUSED)
        shown = hash_secret(token.secret, token.algorithm, self._pepper)
        found, beside = await self._find(token.prefix, shown, wanted)
        stored = found.proof_hash if found is not None else "0" * 64
        if not hmac.compare_digest(shown, stored) or found is None or not _is_usable(found, address):
            raise UnauthenticatedError(REFUSED)
        self.uses.note(found.proof_id, address)
        actions = frozenset(map(Action, found.proof_actions)) if found.proof_actions is not None else None
        actor = Actor(ActorType.API_KEY, str(found.proof_id))
        identity = Identity(actor, "api_key", actions, may_act_for_others=found.proof_may_act_for_others)
        if wanted is not None and beside is not None:
            wanted.keep(identity.asker, beside)
        return identity

    async def _find(self, prefix: str, shown: str, wanted: Wanted | None) -> tuple[Any, Found | None]:
        """The key by its prefix, if there is one; and what the request wants, which is looked for if its hash is the one shown."""
        if wanted is None:
            return await self._database.look_up(_BY_PREFIX, {"prefix": prefix}, Tenants.of_row(ApiKeySecret.prefix, prefix)), None
        lookup = self._locator.locating_for(PROOF, wanted.key)
        parameters = {"prefix": prefix, "shown": shown, "key": wanted.value, "at": now()}
        # With row-level security PostgreSQL finds out whose row that would be in any case; it tells nobody.
        tenants = Tenants.of_rows((ApiKeySecret.prefix, wanted.key), (prefix, wanted.value))
        found = await self._database.look_up(lookup, parameters, tenants)
        return found, lookup.beside(found) if found is not None else None


def _is_usable(found: Any, address: str | None) -> bool:
    moment = now()
    if found.proof_revoked_at is not None:
        return False
    if any(end is not None and end <= moment for end in (found.proof_expires_at, found.proof_secret_expires_at)):
        return False
    if not found.proof_allowed_cidrs:
        return True
    try:
        client = ip_address(address or "")
    except ValueError:
        return False
    return any(client in ip_network(allowed) for allowed in found.proof_allowed_cidrs)
