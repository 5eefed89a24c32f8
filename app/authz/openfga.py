"""The policy engine that asks OpenFGA: rows and lists come from SQL, what an actor was granted on a row from the copy in the store.

The copy is late by moments. An organization with changes that are still on their way is decided by SQL, which the statement
that finds the row says itself; so a revocation holds from the next request on, as with the built-in engine.
"""

import logging
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar, Final
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy.orm import InstrumentedAttribute

from app.authz.builtin import HAS_UNSENT, BuiltinPolicyEngine
from app.authz.engine import Located
from app.authz.model import relation_of
from app.authz.openfga_client import OpenFGAClient
from app.authz.openfga_terms import MAX_CONTEXTUAL_TUPLES, OpenFGAError, TooDeepError
from app.authz.tree import SCOPES
from app.authz.tuples import MEMBER, TupleKey, group_object, object_of, parents_of, user_of
from app.core.actors import Asker
from app.core.errors import UnavailableError
from app.core.permissions import Action, roles_with
from app.core.resources import ResourceRef
from app.db.base import Base
from app.db.engine import Database
from app.db.wanted import Found
from app.observability.metrics import DECIDED_BY_SQL

_log = logging.getLogger(__name__)

CODE: Final = "authorization_unavailable"
# Actions that the same roles carry are always granted together: one of them is asked for all.
_ACTIONS: Final = {
    relation_of(alike[0]): frozenset(alike)
    for alike in [[other for other in Action if roles_with(other) == roles_with(action)] for action in Action]
}
_NOBODYS: Final = UUID(int=0)


class OpenFGAPolicyEngine(BuiltinPolicyEngine):
    """Implements ``PolicyEngine``. One statement and one batch check for each located row."""

    tells_unsent: ClassVar[bool] = True

    def __init__(self, client: OpenFGAClient, *, falls_back: bool = False) -> None:
        self._client = client
        self._falls_back = falls_back
        self._is_down = False

    async def locate(  # noqa: PLR0913 - the parts of a question
        self, database: Database, asker: Asker, key: InstrumentedAttribute[Any], value: Any, at: datetime, *, found: Found | None = None
    ) -> Located | None:
        """See ``PolicyEngine.locate``. What is absent is asked about too: neither a stopwatch nor an outage tells it from invisible."""
        located = await super().locate(database, asker, key, value, at, found=found)
        if located is not None and getattr(located.row, HAS_UNSENT):
            return located
        scopes = located.scopes if located is not None else _scopes_of_nothing(key)
        tenant = located.organization_id if located is not None else _NOBODYS
        try:
            granted = await self._granted(asker, scopes, tenant, at)
        except TooDeepError:
            return located  # groups are nested deeper than the server follows, and SQL follows any depth
        except OpenFGAError as error:
            self._note_failure(error)
            if not self._falls_back:
                raise UnavailableError("Authorization cannot be decided now; nothing was changed. Try again.", code=CODE) from None
            DECIDED_BY_SQL.inc()
            return located
        self._note_success()
        return replace(located, granted=granted) if located is not None else None

    async def check(self) -> None:
        """See ``PolicyEngine.check``."""
        try:
            await self._client.check()
        except OpenFGAError as error:
            raise UnavailableError(f"OpenFGA {error}", code=CODE) from None

    async def aclose(self) -> None:
        """See ``PolicyEngine.aclose``."""
        await self._client.aclose()

    async def _granted(self, asker: Asker, scopes: list[ResourceRef], tenant: UUID, at: datetime) -> frozenset[Action]:
        """What the asker may do on the first of the scopes. Tokens that name very many groups take more than one call."""
        user, resource, parents = user_of(tenant, asker.actor), object_of(scopes[0]), parents_of(scopes)
        groups = asker.groups.names if asker.groups is not None and asker.groups.organization_id == tenant else frozenset()
        named = iter([TupleKey(user, MEMBER, group_object(tenant, name)) for name in sorted(groups)])
        found: set[str] = set()
        first = True
        while (part := list(islice(named, MAX_CONTEXTUAL_TUPLES - len(parents)))) or first:
            found |= await self._client.allowed(user, resource, list(_ACTIONS), [*parents, *part], at)
            first = False
        return frozenset().union(*(_ACTIONS[relation] for relation in found))

    def _note_failure(self, error: OpenFGAError) -> None:
        if not self._is_down:
            self._is_down = True
            consequence = "SQL decides" if self._falls_back else "requests are answered 503"
            _log.error("OpenFGA %s; %s until it does", error, consequence)

    def _note_success(self) -> None:
        if self._is_down:
            self._is_down = False
            _log.warning("OpenFGA answers again")


def _scopes_of_nothing(key: InstrumentedAttribute[Any]) -> list[ResourceRef]:
    """A place that looks like those in the table of the key, and that nobody holds anything on."""
    return [ResourceRef(scope, _NOBODYS) for scope in SCOPES[cast_type("type[Base]", key.class_)]]
