"""What a span means as an execution: one table from attributes to columns, and the span itself kept beside it."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, Self

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from app.core.text import MAX_JSON_BYTES, InvalidTextError, check_json
from app.db.base import MAX_NAME
from app.models.execution import MAX_SESSION, SPAN_ID_LENGTH, TRACE_ID_LENGTH
from app.resources.executions.otlp_forest import SpanKey
from app.resources.executions.otlp_values import JsonWriter, fitted
from app.resources.executions.otlp_wire import SpanError, SpanGroup
from app.resources.executions.schemas import MAX_TOKENS, ExecutionKind, ExecutionStatus, Usage

# Where a column, or a member of a JSON column, comes from: the first of these attributes that the span has. GenAI semantic
# conventions of OpenTelemetry, their older names, and OpenInference.
MAPPING: Final[Mapping[str, tuple[str, ...]]] = {
    "kind": ("gen_ai.operation.name", "openinference.span.kind"),
    "model_provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    "model_name": ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "embedding.model_name"),
    "session_id": ("gen_ai.conversation.id", "session.id"),
    "agent_version": ("gen_ai.agent.version",),
    "usage.input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "usage.output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "usage.cached_tokens": ("gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt_details.cache_read"),
    "usage.reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens", "llm.token_count.completion_details.reasoning"),
    "input.messages": ("gen_ai.input.messages",),
    "input.arguments": ("gen_ai.tool.call.arguments",),
    "input.value": ("input.value",),
    "output.messages": ("gen_ai.output.messages",),
    "output.result": ("gen_ai.tool.call.result",),
    "output.value": ("output.value",),
    "metadata.agent_name": ("gen_ai.agent.name",),
    "metadata.error_code": ("error.type",),
}
# The values of ``kind``; any other is OTHER.
KINDS: Final[Mapping[str, ExecutionKind]] = {
    **dict.fromkeys(("chat", "text_completion", "generate_content", "llm"), ExecutionKind.LLM),
    **dict.fromkeys(("embeddings", "embedding"), ExecutionKind.EMBEDDING),
    **dict.fromkeys(("invoke_agent", "create_agent", "agent"), ExecutionKind.AGENT),
    **dict.fromkeys(("execute_tool", "tool"), ExecutionKind.TOOL),
    **dict.fromkeys(("retrieval", "retriever", "reranker"), ExecutionKind.RETRIEVER),
    **dict.fromkeys(("invoke_workflow", "chain"), ExecutionKind.CHAIN),
    "guardrail": ExecutionKind.GUARDRAIL,
    "evaluator": ExecutionKind.EVALUATOR,
}

MAX_ATTRIBUTES: Final = 1000
MAX_ERROR_MESSAGE: Final = 2000
# A span's metadata holds its error and names, its scope and resource, and everything else it said: together at most 64 KiB.
_SCOPE_BYTES, _RESOURCE_BYTES, _NAMES_BYTES = 1024, 4 * 1024, 12 * 1024
_SPAN_BYTES: Final = MAX_JSON_BYTES - _SCOPE_BYTES - _RESOURCE_BYTES - _NAMES_BYTES
_MEMBER_NAMES: Final = 64  # what the names in an event or a link take
_NAMELESS: Final = "unknown"
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SKEW: Final = timedelta(days=1)
_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Source:
    """Where spans of one group come from, as each of them keeps it."""

    kept: dict[str, Any]

    @classmethod
    def of(cls, group: SpanGroup) -> Self:
        """The resource and scope of a group."""
        resource = fitted(lambda writer: writer.attributes(group.resource.attributes), _RESOURCE_BYTES)
        scope = fitted(lambda writer: _scope(writer, group.scope), _SCOPE_BYTES)
        return cls({name: value for name, value in (("resource", resource), ("scope", scope)) if value})


def key_of(span: Span) -> SpanKey:
    """The span's ids.

    Raises:
        SpanError: they are not ids.
    """
    trace_id, span_id = span.trace_id.hex(), span.span_id.hex()
    if len(trace_id) != TRACE_ID_LENGTH or not trace_id.strip("0"):
        raise SpanError("the trace id is not 16 bytes, or all zero")
    if len(span_id) != SPAN_ID_LENGTH or not span_id.strip("0"):
        raise SpanError("the span id is not 8 bytes, or all zero")
    return SpanKey(trace_id, span_id)


def parent_of(span: Span) -> SpanKey | None:
    """The parent that the span names.

    Raises:
        SpanError: it is no id.
    """
    parent_id = span.parent_span_id.hex()
    if not parent_id.strip("0"):
        return None
    if len(parent_id) != SPAN_ID_LENGTH:
        raise SpanError("the parent's span id is not 8 bytes")
    return SpanKey(span.trace_id.hex(), parent_id)


def values_of(span: Span, source: Source, moment: datetime) -> dict[str, Any]:
    """The columns of an execution that the span tells of.

    Raises:
        SpanError: an id or a time cannot be taken.
    """
    key, parent = key_of(span), parent_of(span)
    started_at, ended_at = _times(span, moment)
    attributes = {pair.key: pair.value for pair in islice(span.attributes, MAX_ATTRIBUTES)}
    has_failed = span.status.code == Status.StatusCode.STATUS_CODE_ERROR
    ended = ExecutionStatus.FAILED if has_failed else ExecutionStatus.COMPLETED
    error = {"error_message": _told(span.status.message)} if has_failed and span.status.message else {}
    kind = _text(attributes, "kind")
    return {
        "operation": _name(span.name, MAX_NAME) or _NAMELESS,
        "status": (ended if ended_at is not None else ExecutionStatus.RUNNING).value,
        "started_at": started_at,
        "ended_at": ended_at,
        "trace_id": key.trace_id,
        "span_id": key.span_id,
        "parent_span_id": parent.span_id if parent is not None else None,
        "correlation_id": key.trace_id,
        "kind": KINDS.get(kind.lower(), ExecutionKind.OTHER).value if kind is not None else None,
        "model_provider": _text(attributes, "model_provider"),
        "model_name": _text(attributes, "model_name"),
        "session_id": _text(attributes, "session_id", MAX_SESSION),
        "agent_version": _text(attributes, "agent_version"),
        "usage": _usage(attributes),
        "input": _contents(attributes, "input."),
        "output": _contents(attributes, "output."),
        "metadata": {
            **_present((name, _text(attributes, f"metadata.{name}")) for name in ("agent_name", "error_code")),
            **error,
            "otel": {**fitted(lambda writer: _span(writer, span), _SPAN_BYTES), **source.kept},
        },
    }


def _times(span: Span, moment: datetime) -> tuple[datetime, datetime | None]:
    started_at = _EPOCH + timedelta(microseconds=span.start_time_unix_nano // 1000)
    ended_at = _EPOCH + timedelta(microseconds=span.end_time_unix_nano // 1000) if span.end_time_unix_nano else None
    if not _EARLIEST <= started_at <= moment + _SKEW or (ended_at or moment) > moment + _SKEW:
        raise SpanError("a time is before the year 2000 or more than a day ahead")
    if ended_at is not None and ended_at < started_at:
        raise SpanError("it ends before it starts")
    return started_at, ended_at


def _found(attributes: Mapping[str, AnyValue], column: str) -> Iterable[AnyValue]:
    return (attributes[name] for name in MAPPING[column] if name in attributes)


def _text(attributes: Mapping[str, AnyValue], column: str, longest: int = MAX_NAME) -> str | None:
    return next((text for value in _found(attributes, column) if (text := _name(value.string_value, longest))), None)


def _name(text: str, longest: int) -> str:
    """A text as our columns hold names: one line, not too long; perhaps empty."""
    return _NOT_SHOWN.sub(" ", text[: 2 * longest]).strip()[:longest].strip()


def _told(text: str) -> str:
    return text[:MAX_ERROR_MESSAGE].replace("\x00", "\ufffd")


def _usage(attributes: Mapping[str, AnyValue]) -> dict[str, int] | None:
    told = _present((name, _count(attributes, f"usage.{name}")) for name in Usage.model_fields)
    return Usage(**told).model_dump() if told else None


def _count(attributes: Mapping[str, AnyValue], column: str) -> int | None:
    for value in _found(attributes, column):
        count = value.int_value if value.HasField("int_value") else value.double_value
        if 0 <= count <= MAX_TOKENS and (value.HasField("int_value") or (value.HasField("double_value") and count == int(count))):
            return int(count)
    return None


def _contents(attributes: Mapping[str, AnyValue], column: str) -> dict[str, Any]:
    """What went in, or came out, when it is small enough to be kept whole."""
    names = [name for name in MAPPING if name.startswith(column)]
    contents = _present((name.removeprefix(column), _content(next(iter(_found(attributes, name)), None))) for name in names)
    try:
        return check_json(contents)
    except InvalidTextError:
        return {}


def _content(value: AnyValue | None) -> Any:
    if value is None:
        return None
    written = fitted(lambda writer: {"value": writer.value(value)}, MAX_JSON_BYTES)
    if "truncated" in written:
        return None
    content = written["value"]
    if isinstance(content, str) and content.startswith(("[", "{")):  # JSON in a text, as the conventions allow
        try:
            return check_json({"value": json.loads(content)})["value"]
        except (ValueError, RecursionError):
            return content
    return content


def _span(writer: JsonWriter, span: Span) -> dict[str, Any]:
    return {
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_") if span.kind in Span.SpanKind.values() else "UNSPECIFIED",
        "attributes": writer.attributes(span.attributes),
        **_filled("events", writer.each(span.events, lambda event: _event(writer, event))),
        **_filled("links", writer.each(span.links, lambda link: _link(writer, link))),
        **_filled("trace_state", writer.string(span.trace_state)),
        **_filled("dropped_attributes", span.dropped_attributes_count),
        **_filled("dropped_events", span.dropped_events_count),
        **_filled("dropped_links", span.dropped_links_count),
    }


def _event(writer: JsonWriter, event: Span.Event) -> dict[str, Any]:
    writer.take(_MEMBER_NAMES)
    return {
        "name": writer.string(event.name),
        "time_unix_nano": writer.string(str(event.time_unix_nano)),
        "attributes": writer.attributes(event.attributes, 1),
    }


def _link(writer: JsonWriter, link: Span.Link) -> dict[str, Any]:
    writer.take(_MEMBER_NAMES)
    return {
        "trace_id": writer.string(link.trace_id.hex()),
        "span_id": writer.string(link.span_id.hex()),
        "attributes": writer.attributes(link.attributes, 1),
    }


def _scope(writer: JsonWriter, scope: InstrumentationScope) -> dict[str, Any]:
    return {
        **_filled("name", writer.string(scope.name)),
        **_filled("version", writer.string(scope.version)),
        **_filled("attributes", writer.attributes(scope.attributes, 1)),
    }


def _filled(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if value else {}


def _present(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}
