"""Wire shapes of the AuthZEN Authorization API 1.0. Unknown members are ignored, as its section on JSON serialization wants."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from app.http.described import Described
from app.http.schemas import NO_FLAG, Schema
from app.resources.authz.schemas import MAX_CHECKS

MAX_TOKEN = 8192

Properties = Annotated[dict[str, Any] | None, Field(examples=[{}])]
Context = Annotated[dict[str, Any] | None, Field(examples=[{"time": "2026-11-20T18:11:56Z"}])]


class EntityPart(Described):
    """A subject or a resource, perhaps not whole."""

    type: str | None = None
    id: str | None = None
    properties: Properties = None
    """Accepted, and without influence: decisions rest on what is stored."""


class Entity(EntityPart):
    """A subject or a resource."""

    type: str
    """Of a subject `user`, `service`, `agent`, `group` or `api_key`; of a resource `organization`, `project`, `document` or `api_call`.

    In any case.
    """
    id: str
    """Of a subject the actor's id, of a resource its UUID."""


class EntityKind(Described):
    """What kind of subject or resource is searched for; an `id` is ignored."""

    type: str
    properties: Properties = None
    """Accepted, and without influence."""


class ActionPart(Described):
    """An action, perhaps not whole."""

    name: str | None = None
    properties: Properties = None
    """Accepted, and without influence."""


class AccessAction(ActionPart):
    """An action."""

    name: str
    """In full (`DOCUMENT_READ`), or without the type of the resource it is asked on (`read` of a document); in any case."""


class EvaluationPart(Described):
    """A question, as far as it is not the default."""

    subject: EntityPart | None = None
    action: ActionPart | None = None
    resource: EntityPart | None = None
    context: Context = None
    """Accepted, and without influence."""

    def or_default(self, default: "EvaluationPart") -> "EvaluationPart":
        """The question with what it leaves open taken from another; a member is taken whole."""
        return EvaluationPart(
            subject=self.subject or default.subject, action=self.action or default.action, resource=self.resource or default.resource
        )

    @property
    def missing(self) -> str | None:
        """The first member that a whole question would have."""
        for name, entity in (("subject", self.subject), ("resource", self.resource)):
            if entity is None or entity.type is None or entity.id is None:
                return f"{name}, with its type and id,"
        return "action, with its name," if self.action is None or self.action.name is None else None


class Evaluation(EvaluationPart):
    """May this subject take this action on this resource?"""

    subject: Entity
    action: AccessAction
    resource: Entity


class EvaluationsSemantic(StrEnum):
    """When to stop answering."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"


class EvaluationsOptions(Described):
    """How to answer many questions."""

    evaluations_semantic: EvaluationsSemantic = EvaluationsSemantic.EXECUTE_ALL
    """`deny_on_first_deny` and `permit_on_first_permit` end the answers with the first of their kind."""


class Evaluations(EvaluationPart):
    """Many questions; what stands beside `evaluations` is the default for each. Without any it is one question."""

    evaluations: Annotated[
        list[EvaluationPart] | None,
        Field(examples=[[{}, {"action": {"name": "PROJECT_DELETE"}}]], json_schema_extra={"maxItems": MAX_CHECKS}),
    ] = None
    """At most 200."""
    options: EvaluationsOptions | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.evaluations and self.missing is not None:
            raise ValueError(f"{self.missing} is missing")
        return self

    @property
    def semantic(self) -> EvaluationsSemantic:
        """When to stop answering."""
        return self.options.evaluations_semantic if self.options is not None else EvaluationsSemantic.EXECUTE_ALL


class PageAsked(Described):
    """Which part of the results."""

    token: Annotated[str, Field(max_length=MAX_TOKEN)] | None = None
    """Continue: the `next_token` of the answer before."""
    limit: Annotated[int, Field(ge=0), NO_FLAG] | None = None
    """How many results at most; 1000 when absent or larger. It stays the same from page to page."""


AskedPage = Annotated[PageAsked | None, Field(examples=[{"limit": 100}])]


class _Search(Described):
    context: Context = None
    """Accepted, and without influence."""
    page: AskedPage = None


class SubjectSearch(_Search):
    """Which subjects of a type may take this action on this resource?"""

    subject: EntityKind
    action: AccessAction
    resource: Entity


class ResourceSearch(_Search):
    """On which resources of a type may this subject take this action?"""

    subject: Entity
    action: AccessAction
    resource: EntityKind


class ActionSearch(_Search):
    """Which actions may this subject take on this resource?"""

    subject: Entity
    resource: Entity


class EvaluationError(Schema):
    """Why a question has no other answer than a denial."""

    status: int
    """400 for what names nothing here; 404 for what is absent or not yours to ask about."""
    message: str


class DecisionContext(Schema):
    """What there is to say about a denial, or about a search that found nothing."""

    reason: str | None = None
    error: EvaluationError | None = None


class Decision(Schema):
    """The answer."""

    decision: bool
    context: DecisionContext | None = None


class Decisions(Schema):
    """The answers, in the order of the questions."""

    evaluations: list[Decision]


class PageRead(Schema):
    """Which part of the results this is."""

    next_token: str = ""
    """Empty at the end."""
    count: int = 0
    total: int = 0


class EntityRead(Schema):
    """A subject or a resource; the type is spelled as it was asked for."""

    type: str
    id: str


class ActionRead(Schema):
    """An action."""

    name: str


class _Found(Schema):
    page: Annotated[PageRead, Field(examples=[{"next_token": "", "count": 1, "total": 1}])] = Field(default_factory=PageRead)
    context: DecisionContext | None = None


class SubjectsFound(_Found):
    """Subjects, sorted by id."""

    results: Annotated[list[EntityRead], Field(examples=[[{"type": "user", "id": "bob"}]])] = Field(default_factory=list)


class ResourcesFound(_Found):
    """Resources, in order of their ids, which is the order of their creation."""

    results: list[EntityRead] = Field(default_factory=list)


class ActionsFound(_Found):
    """Actions, sorted by name."""

    results: list[ActionRead] = Field(default_factory=list)
