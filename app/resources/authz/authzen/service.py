"""The answers of ``AuthorizationService`` in AuthZEN's words, and by its rule that a denial is an answer and not an error."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from app.core.actors import Actor
from app.core.errors import InvalidError, NotFoundError
from app.core.permissions import Action, roles_with
from app.core.resources import ResourceRef
from app.observability.metrics import count_answers
from app.resources.authz.authzen.names import UnknownNameError, action_of, actor_of, ref_of, resource_type_of, subject_type_of
from app.resources.authz.authzen.pages import page_of
from app.resources.authz.authzen.schemas import (
    ActionRead,
    ActionSearch,
    ActionsFound,
    Decision,
    DecisionContext,
    Decisions,
    EntityRead,
    Evaluation,
    EvaluationError,
    EvaluationPart,
    Evaluations,
    EvaluationsSemantic,
    ResourceSearch,
    ResourcesFound,
    SubjectSearch,
    SubjectsFound,
)
from app.resources.authz.schemas import MAX_CHECKS
from app.resources.authz.service import AuthorizationService
from app.unit_of_work import UnitOfWork

_ENDS_WITH: Final[Mapping[EvaluationsSemantic, bool | None]] = MappingProxyType(
    {
        EvaluationsSemantic.EXECUTE_ALL: None,
        EvaluationsSemantic.DENY_ON_FIRST_DENY: False,
        EvaluationsSemantic.PERMIT_ON_FIRST_PERMIT: True,
    }
)


class AccessService:
    """Who may ask is as in ``AuthorizationService``; what one may not ask about is answered like what does not exist."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._authorization = AuthorizationService(work)

    async def evaluate(self, asked: Evaluation) -> Decision:
        """One decision; one statement.

        Raises:
            UnauthenticatedError: the caller is anonymous.
        """
        (decision,) = await self._decide([asked])
        return decision

    async def evaluate_all(self, asked: Evaluations) -> Decision | Decisions:
        """The decisions in order; one statement for each type of resource. A question that is not whole is denied, the others are not.

        Raises:
            UnauthenticatedError: the caller is anonymous.
            InvalidError: more questions than are answered at once.
        """
        if not asked.evaluations:
            (decision,) = await self._decide([asked])
            return decision
        if len(asked.evaluations) > MAX_CHECKS:
            raise InvalidError(f"has more than {MAX_CHECKS} members", pointer="/evaluations", code="too_long")
        return Decisions(evaluations=await self._decide([part.or_default(asked) for part in asked.evaluations], asked.semantic))

    async def search_subjects(self, asked: SubjectSearch) -> SubjectsFound:
        """Who may, the members of groups included.

        Raises:
            UnauthenticatedError: the caller is anonymous.
            InvalidError: the token is of another search.
        """
        self._authorization.require_identity()
        page = page_of(asked.page, "subject", asked.subject.type, asked.action.name, asked.resource.type, asked.resource.id)
        try:
            kind, ref = subject_type_of(asked.subject.type), ref_of(asked.resource)
            action = action_of(asked.action, ref.type)
            resource = await self._work.locate_ref(ref)
            await self._work.admit(resource, Action.MEMBER_MANAGE, is_secret=True)
        except (UnknownNameError, NotFoundError) as error:
            return SubjectsFound(context=_context_of(error))
        able = await self._authorization.able(resource, action)
        shown, told = page.cut(sorted(actor.id for actor in able if actor.type is kind))
        return SubjectsFound(page=told, results=[EntityRead(type=asked.subject.type, id=one) for one in shown])

    async def search_resources(self, asked: ResourceSearch) -> ResourcesFound:
        """Where the subject may; about another, of the resources whose members the caller manages.

        Raises:
            UnauthenticatedError: the caller is anonymous.
            InvalidError: the token is of another search.
        """
        self._authorization.require_identity()
        page = page_of(asked.page, "resource", asked.subject.type, asked.subject.id, asked.action.name, asked.resource.type)
        try:
            actor, kind = actor_of(asked.subject), resource_type_of(asked.resource.type)
            action = action_of(asked.action, kind)
        except UnknownNameError as error:
            return ResourcesFound(context=_context_of(error))
        found, total = await self._authorization.objects(actor, action, kind, page.id_after, page.limit + 1)
        shown = [str(one) for one in found[: page.limit]]
        told = page.show(shown, total, has_more=len(found) > len(shown))
        return ResourcesFound(page=told, results=[EntityRead(type=asked.resource.type, id=one) for one in shown])

    async def search_actions(self, asked: ActionSearch) -> ActionsFound:
        """What the subject may do; one statement.

        Raises:
            UnauthenticatedError: the caller is anonymous.
            InvalidError: the token is of another search.
        """
        self._authorization.require_identity()
        page = page_of(asked.page, "action", asked.subject.type, asked.subject.id, asked.resource.type, asked.resource.id)
        try:
            actions = await self._authorization.actions(actor_of(asked.subject), ref_of(asked.resource))
        except (UnknownNameError, NotFoundError) as error:
            return ActionsFound(context=_context_of(error))
        shown, told = page.cut(sorted(action.value for action in actions))
        return ActionsFound(page=told, results=[ActionRead(name=name) for name in shown])

    async def _decide(
        self, asked: Sequence[EvaluationPart], semantic: EvaluationsSemantic = EvaluationsSemantic.EXECUTE_ALL
    ) -> list[Decision]:
        self._authorization.require_identity()
        read = [_read(part) for part in asked]
        questions = [one for one in read if not isinstance(one, UnknownNameError)]
        granted = iter(await self._authorization.judge([(actor, ref) for actor, _, ref in questions]))
        decisions = [_denial(one) if isinstance(one, UnknownNameError) else _decision(one[1], next(granted)) for one in read]
        told = list(_up_to(_ENDS_WITH[semantic], decisions))
        count_answers("authzen", (decision.decision for decision in told))
        return told


def _read(asked: EvaluationPart) -> tuple[Actor, Action, ResourceRef] | UnknownNameError:
    if asked.missing is not None:
        return UnknownNameError(f"{asked.missing} is missing")
    whole = Evaluation.model_validate(asked, from_attributes=True)
    try:
        actor, ref = actor_of(whole.subject), ref_of(whole.resource)
        return actor, action_of(whole.action, ref.type), ref
    except UnknownNameError as error:
        return UnknownNameError(*error.args)  # one that was raised knows the frames that will hold it


def _decision(action: Action, granted: frozenset[Action] | None) -> Decision:
    if granted is None:
        return _denial(NotFoundError())
    if action in granted:
        return Decision(decision=True)
    reason = f"{action.value} is not granted; roles that carry it: {', '.join(roles_with(action))}"
    return Decision(decision=False, context=DecisionContext(reason=reason))


def _denial(error: UnknownNameError | NotFoundError) -> Decision:
    return Decision(decision=False, context=_context_of(error))


def _context_of(error: UnknownNameError | NotFoundError) -> DecisionContext:
    return DecisionContext(error=EvaluationError(status=404 if isinstance(error, NotFoundError) else 400, message=str(error)))


def _up_to(last: bool | None, decisions: Sequence[Decision]) -> Iterator[Decision]:
    for decision in decisions:
        yield decision
        if decision.decision is last:
            return
