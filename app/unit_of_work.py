"""One request's work: locate, admit, record, commit; one transaction, one tenant, one actor."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from app.audit.denials import DeniedAttempts
from app.audit.trail import Origin, Subject, make_event
from app.authz.engine import ACTOR, ASKED, PRINCIPAL, Judgements, Located, PolicyEngine
from app.authz.memberships import holds_directly
from app.authz.outbox import SESSION_KEY, Outbox
from app.authz.tree import KEYS
from app.core.actors import Actor, ActorType, Asker, Identity
from app.core.clock import now
from app.core.errors import AppError, ForbiddenError, NotFoundError, UnauthenticatedError
from app.core.events import AuditAction, Outcome
from app.core.permissions import Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.db.base import Base
from app.db.confinement import Tenants
from app.db.engine import Database, View
from app.db.session import TenantSession
from app.db.visibility import VisibleRows, confine_to
from app.db.wanted import Wanted
from app.db.writes import Insertion
from app.models import AuditEvent
from app.observability.metrics import ALLOWED, FORBIDDEN, NOT_FOUND

_log = logging.getLogger(__name__)

SYSTEM: Final = Identity(Actor(ActorType.SERVICE, "saasbase"), "system")

Callback = Callable[[], Awaitable[None]]


class UnrecordedChangeError(RuntimeError):
    """A transaction that changed something recorded nothing; it is rolled back. A fault of this service."""


@dataclass(frozen=True, slots=True)
class WorkContext:
    """What every unit of work of a process shares."""

    database: Database
    policy: PolicyEngine
    denials: DeniedAttempts
    outbox: Outbox | None = None  # when the policy engine decides from a copy


class UnitOfWork:
    """Everything a service may do to the database on behalf of one actor.

    Until ``admit`` (or ``admit_everywhere``) has said yes, its ``session`` reads and writes nothing. As a context it commits when the
    block ends, and rolls back when it raises.
    """

    def __init__(self, context: WorkContext, identity: Identity, origin: Origin, *, is_read_only: bool) -> None:
        self.identity = identity
        self.origin = origin
        self.expected_revision: int | None = None
        self.wanted: Wanted | None = None  # what may have been found already
        # Where the actor was admitted, or forbidden what he asked for: what a caller may know, so that a log line may name it.
        self.organization_id: UUID | None = None
        self._context = context
        self._events: list[dict[str, Any]] = []
        self._listed: list[tuple[str, Asker, Action]] = []
        self._target: Located | None = None
        self._must_commit = False
        self._after_commit: list[Callback] = []
        self._after_rollback: list[Callback] = []
        self.session = TenantSession(context.database, is_read_only=is_read_only, info={SESSION_KEY: context.outbox})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if error is None:
                await self.commit()
            elif isinstance(error, ForbiddenError):
                FORBIDDEN.inc()
                self.note_refusal(error)
        finally:
            await self.rollback()

    @property
    def actor(self) -> Actor:
        """Who is acting."""
        return self.identity.actor

    @property
    def parties(self) -> list[Actor]:
        """Who must be allowed what is done: the actor, and who it acts for."""
        return [identity.actor for _, identity in self._parties]

    def is_about_itself(self, actor: Actor) -> bool:
        """Whether the actor is the one acting, for nobody but itself: then it may give up what it holds.

        Not with a credential that was made for less: what its subject holds is not that credential's to give away.
        """
        return actor == self.actor and self.identity.on_behalf_of is None and self.identity.only_actions is None

    async def locate(self, key: InstrumentedAttribute[Any], value: Any) -> Located:
        """Find a resource by a unique column, together with the actor's roles on it, in one statement; or in that which proved the actor.

        Nothing about it may be told before ``admit``.

        Raises:
            NotFoundError: there is none (for an anonymous caller UnauthenticatedError: it learns nothing about existence).
        """
        found = await self.find_by(key, value)
        if found is None:
            raise self._hidden()
        return found

    async def locate_ref(self, ref: ResourceRef) -> Located:
        """The same by type and id. Raises what ``locate`` does."""
        found = await self.find(ref)
        if found is None:
            raise self._hidden()
        return found

    async def holds_directly(self, ref: ResourceRef, role: Role) -> bool:
        """Whether the actor himself, not a group of his, was given that role on that resource."""
        async with self._context.database.open_read(Tenants.of_row(KEYS[ref.type], ref.id)) as connection:
            return await holds_directly(connection, ref, self.actor, role)

    def asker_of(self, actor: Actor) -> Asker:
        """An actor as the engine sees him; the token of this request tells of the groups of its own parties only.

        Of who acts for himself, what both are in: the groups of the token tell of one of the two.
        """
        askers = (identity.asker for _, identity in self._parties if identity.actor == actor)
        return min(askers, key=lambda asker: asker.groups is not None, default=Asker(actor))

    def view(self, organization_id: UUID | None = None) -> View:
        """What questions about authorization see: one organization, or all the actor knows."""
        return View(self._context.database, Tenants.exactly(organization_id) if organization_id is not None else self._tenants_of_actor)

    async def judge(self, view: View, resource_type: ResourceType, asked: Collection[tuple[UUID, Asker]]) -> Judgements:
        """What each asker was granted on each resource; see ``PolicyEngine.judge``."""
        return await self._context.policy.judge(view, resource_type, asked, now())

    async def find_by(self, key: InstrumentedAttribute[Any], value: Any) -> Located | None:
        """``locate`` without an error, for what a body names: the caller decides what is told of it."""
        database, policy, asker = self._context.database, self._context.policy, self.identity.asker
        known = self.wanted.take(asker, key, value) if self.wanted is not None else None
        found = await policy.locate(database, asker, key, value, now(), found=known)
        limit, principal = self.identity.only_actions, self.identity.on_behalf_of
        if found is None or (principal is None and limit is None):
            return found
        if principal is None:
            return replace(found, only_actions=limit)
        theirs = await policy.locate(database, principal.asker, key, value, now())
        shared = theirs.granted if theirs is not None else frozenset[Action]()
        return replace(found, only_actions=shared if limit is None else shared & limit)

    async def find(self, ref: ResourceRef) -> Located | None:
        """The same, or None when there is none. Only for questions about authorization: it tells of existence."""
        return await self.find_by(KEYS[ref.type], ref.id) if ref.type in KEYS else None

    async def admit(self, target: Located, *actions: Action, is_secret: bool = False) -> None:
        """Let the actor go on if he may take any of the actions on the target, and pin the session to the target's organization.

        Raises:
            UnauthenticatedError: the caller is anonymous and lacks the right.
            NotFoundError: the actor may not see the target, or may not do what is secret to whoever may not.
            ForbiddenError: he may see it, but not do this.
        """
        if target.actions.isdisjoint(actions) and not target.concerns_only_the_actor:
            self._note_denial(target, actions[0].value)
            raise self._hidden() if is_secret else self._refusal(target, actions[0])
        ALLOWED.inc()
        self._target = target
        self.pin(target.organization_id)

    def note_refusal(self, error: ForbiddenError) -> None:
        """Record that the actor was admitted to a target, and then refused by a rule."""
        if self._target is not None:
            self._note_denial(self._target, error.code)

    async def admit_everywhere(self, action: Action) -> None:
        """Let the actor list whatever he may take the action on; the session then passes only statements made by ``only_visible``.

        Raises:
            UnauthenticatedError: the caller is anonymous and holds the action on nothing.
        """
        if self.identity.is_anonymous:
            async with self._context.database.open_read(self._tenants_of_actor) as connection:
                if not await self._context.policy.holds_anywhere(connection, self.identity.asker, action, now()):
                    raise self._hidden()
        self.confine_lists(action)
        ALLOWED.inc()

    def admit_survey(self, actor: Actor, action: Action) -> None:
        """Let the actor list what another may take the action on, as far as he himself manages members there."""
        managed = [(slot, identity.asker, Action.MEMBER_MANAGE) for slot, identity in self._parties]
        self._list_what([(ASKED, self.asker_of(actor), action), *managed])

    def confine_lists(self, action: Action) -> None:
        """Within the tenant the actor was admitted to, confine ``only_visible`` to what he may take the action on."""
        self._list_what([(slot, identity.asker, action) for slot, identity in self._parties])

    def only_visible(self, statement: Select[Any], model: type[Base]) -> Select[Any]:
        """Confine a select to the rows of ``model`` the actor was admitted to; all of the pinned tenant when nothing does."""
        visible = self.visible_rows(model)
        return confine_to(statement, model, *visible) if visible else statement

    def visible_rows(self, model: type[Base]) -> tuple[VisibleRows, ...]:
        """The same for a page of a list: the ways in which its rows have to be visible, none when nothing confines them."""
        return tuple(self._context.policy.visible_rows(model, action, asker, slot) for slot, asker, action in self._listed)

    def pin(self, organization_id: UUID) -> None:
        """Confine the session to one organization. Called by ``admit``, and by the service that has just made an organization."""
        self.session.fence.pin_tenant(organization_id)
        self.organization_id = organization_id

    def record(self, action: AuditAction, subject: Subject | Located, *, correlation_id: str | None = None, **details: Any) -> None:
        """Write an audit event with the commit, in the same transaction.

        ``correlation_id``, that of what is changed, wins over the request's own, which then stands in the details.
        """
        requested = self.origin.correlation_id
        if correlation_id is not None and requested not in {None, correlation_id}:
            details["request_correlation_id"] = requested
        self.record_told(action, subject, details, correlation_id=correlation_id)

    def record_told(  # noqa: PLR0913 - the parts of an event
        self,
        action: AuditAction | str,
        subject: Subject | Located,
        details: Mapping[str, Any],
        *,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
        event_id: UUID | None = None,
    ) -> dict[str, Any]:
        """The same with details as one mapping, for what an application tells too; returns the event as it will be written."""
        if isinstance(subject, Located):
            subject = Subject(subject.ref, subject.organization_id, subject.project_id)
        origin = self.origin if correlation_id is None else replace(self.origin, correlation_id=correlation_id)
        event = make_event(self.identity, origin, action, subject, details, outcome=outcome, event_id=event_id)
        self._events.append(event)
        return event

    def is_its_own_record(self) -> None:
        """Say that what was changed needs no audit event: the row itself says who and when, and nobody's rights or data depend on it."""
        self.session.fence.has_changed = False
        self._must_commit = True

    def adopt(self, events: Iterable[dict[str, Any]]) -> None:
        """Write events that were made earlier with the commit."""
        self._events.extend(events)

    def after_commit(self, callback: Callback) -> None:
        """Run something once the transaction is durable; a failure is logged, not told."""
        self._after_commit.append(callback)

    def after_rollback(self, callback: Callback) -> None:
        """Undo something outside the database if the transaction does not become durable."""
        self._after_rollback.append(callback)

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """A part of the transaction that may fail and then leaves nothing (a savepoint)."""
        recorded = len(self._events)
        try:
            async with self.session.attempt():
                yield
        except BaseException:
            del self._events[recorded:]
            raise

    async def commit(self) -> None:
        """Write the events and make everything durable.

        Raises:
            UnrecordedChangeError: something was changed and nothing recorded.
        """
        if self.session.fence.has_changed and not self._events:
            raise UnrecordedChangeError("a change without an audit event")
        self.session.require_no_objects()
        if not self._events and not self._must_commit:  # nothing was changed: there is nothing to commit
            return
        if self._events:
            self.session.insert(Insertion(AuditEvent, self._events))
        # Where the outcome may be unknown (a connection lost during COMMIT) what lies outside the database must stay.
        await self.session.commit(self._after_rollback.clear, at_once=self._context.outbox is None)
        await self.session.aclose()
        await _run(self._after_commit)

    async def rollback(self) -> None:
        """Leave nothing behind. Harmless after a commit."""
        await self.session.aclose()
        await _run(self._after_rollback)

    @property
    def _parties(self) -> list[tuple[str, Identity]]:
        """Who must be allowed: the actor, and who it acts for."""
        principal = self.identity.on_behalf_of
        return [(ACTOR, self.identity), *([(PRINCIPAL, principal)] if principal is not None else [])]

    def _list_what(self, listed: list[tuple[str, Asker, Action]]) -> None:
        action = next(action for slot, _, action in listed if slot == ACTOR)
        if self.identity.only_actions is not None and action not in self.identity.only_actions:
            raise ForbiddenError(f"This credential may not {action.value}.")
        self._listed = listed
        fence = self.session.fence
        if fence.pin is None:
            fence.tenants_of_lists = self._tenants_of_actor
        asking, at = self._context.policy.asking, now()
        fence.list_parameters = {name: value for slot, asker, _ in listed for name, value in asking(asker, at, slot).items()}

    @property
    def _tenants_of_actor(self) -> Tenants:
        groups = self.identity.groups
        return Tenants.of_subjects([(self.actor.type.value, self.actor.id)], groups.organization_id if groups is not None else None)

    def _refusal(self, target: Located, action: Action) -> AppError:
        if self.identity.is_anonymous or not target.is_readable:
            return self._hidden()
        self.organization_id = target.organization_id
        return ForbiddenError(f"{self.actor.subject} may not {action.value} here.")

    def _hidden(self) -> AppError:
        NOT_FOUND.inc()  # the invisible and the absent alike: a number that told them apart would tell who reads it
        return UnauthenticatedError("This needs an identity that may see it.") if self.identity.is_anonymous else NotFoundError()

    def _note_denial(self, target: Located, asked: str) -> None:
        subject = Subject(target.ref, target.organization_id, target.project_id)
        event = make_event(self.identity, self.origin, AuditAction.ACCESS_DENIED, subject, {"asked_action": asked}, outcome=Outcome.DENIED)
        self._context.denials.add(self.identity, event, asked)


async def _run(callbacks: list[Callback]) -> None:
    while callbacks:
        callback = callbacks.pop(0)
        try:
            await callback()
        except Exception:  # noqa: BLE001 - the answer is decided already
            _log.exception("a step after the transaction failed")


@asynccontextmanager
async def open_system_work(context: WorkContext, reason: str, organization_id: UUID) -> AsyncIterator[UnitOfWork]:
    """Work of the service itself in one organization, without a request: named, logged and recorded like any other."""
    _log.debug("system work: %s", reason)
    async with UnitOfWork(context, SYSTEM, Origin(), is_read_only=False) as work:
        work.pin(organization_id)
        yield work
