"""OTLP on the wire: the spans of an export request, in protobuf or JSON, and the answer to it.

https://opentelemetry.io/docs/specs/otlp/
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.core.errors import BadRequestError, TooLargeError

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
# Read as JSON a body takes some twenty-five times its size in memory; as protobuf, whose spans are read one by one, it does not.
MAX_BYTES: Final = {PROTOBUF: 32 * 1024**2, JSON: 8 * 1024**2}
MAX_PACKED_BYTES: Final = 8 * 1024**2
MAX_SPANS: Final = 10_000
MAX_SPAN_BYTES: Final = 4 * 1024**2
_MAX_FIELDS: Final = 8 * MAX_SPANS

_BYTES_OF_WIRE_TYPE: Final = {1: 8, 5: 4}
_VARINT, _LENGTH_DELIMITED = 0, 2
_MAX_VARINT_BYTES = 10
_ID_FIELDS: Final = ("traceId", "spanId", "parentSpanId")
_UNREADABLE = (DecodeError, ParseError, ValueError, TypeError, AttributeError, RecursionError)


class SpanError(ValueError):
    """A span that cannot be taken in; the message is one of few, so that equal reasons are counted together."""


@dataclass(frozen=True, slots=True)
class SpanGroup:
    """Spans of one resource and scope, each still unread."""

    resource: Resource
    scope: InstrumentationScope
    spans: Sequence[Any]
    _read: Callable[[Any], Span]

    def __iter__(self) -> Iterator[Span | SpanError]:
        """Each span, or why it cannot be read."""
        for span in self.spans:
            try:
                yield self._read(span)
            except SpanError as error:
                yield error
            except _UNREADABLE:
                yield SpanError("the span cannot be decoded")


def read_groups(content: bytes, media_type: str) -> Iterator[SpanGroup]:
    """The spans of an ``ExportTraceServiceRequest``, group by group.

    Raises:
        BadRequestError: the content is not what its media type says.
        TooLargeError: it holds more than 10,000 spans.
    """
    count = 0
    try:
        for group in _groups_in_json(content) if media_type == JSON else _groups_in_protobuf(memoryview(content)):
            count += len(group.spans)
            if count > MAX_SPANS:
                raise _too_many()
            yield group
    except _UNREADABLE:
        raise BadRequestError(f"The body is not an ExportTraceServiceRequest in {media_type}.", code="broken_otlp") from None


def write_answer(media_type: str, rejected: Mapping[str, int]) -> bytes:
    """An ``ExportTraceServiceResponse``: empty when every span was taken in, else how many were not, and why."""
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = sum(rejected.values())
        answer.partial_success.error_message = "; ".join(f"{count} rejected: {reason}" for reason, count in rejected.items())
    return MessageToJson(answer, indent=None).encode() if media_type == JSON else answer.SerializeToString()


def _groups_in_protobuf(content: memoryview) -> Iterator[SpanGroup]:
    """Walked by hand down to the spans: an empty span is two bytes here and two hundred once the library has read it."""
    fields = _Fields()
    for resource_spans in fields.numbered(content, 1):
        parts = [*fields.of(resource_spans)]
        resource = _message(Resource, [part for number, part in parts if number == 1])
        for scope_spans in (part for number, part in parts if number == 2):  # noqa: PLR2004 - ResourceSpans.scope_spans
            inner = [*fields.of(scope_spans)]
            scope = _message(InstrumentationScope, [part for number, part in inner if number == 1])
            spans = [part for number, part in inner if number == 2]  # noqa: PLR2004 - ScopeSpans.spans
            yield SpanGroup(resource, scope, spans, _read_protobuf)


class _Fields:
    """The length-delimited fields of messages; gives up after more of them than a request of the largest size has."""

    def __init__(self) -> None:
        self._seen = 0

    def numbered(self, message: memoryview, wanted: int) -> Iterator[memoryview]:
        return (part for number, part in self.of(message) if number == wanted)

    def of(self, message: memoryview) -> Iterator[tuple[int, memoryview]]:
        place, end = 0, len(message)
        while place < end:
            self._seen += 1
            if self._seen > _MAX_FIELDS:
                raise _too_many()
            tag, place = _varint(message, place)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == _VARINT:
                _, place = _varint(message, place)
                continue
            size = _BYTES_OF_WIRE_TYPE.get(wire_type)
            if size is None:
                if wire_type != _LENGTH_DELIMITED:
                    raise DecodeError
                size, place = _varint(message, place)
            place += size
            if place > end or not number:
                raise DecodeError
            if wire_type == _LENGTH_DELIMITED:
                yield number, message[place - size : place]


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[place : place + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no continuation bit
            return value, place + index + 1
    raise DecodeError


def _message(kind: type[Any], parts: list[memoryview]) -> Any:
    """Protobuf's own rule for a field that is given several times: the parts together."""
    if sum(map(len, parts)) > MAX_SPAN_BYTES:
        raise TooLargeError(f"A resource or scope is larger than {MAX_SPAN_BYTES} bytes.")
    return kind.FromString(b"".join(parts))


def _read_protobuf(span: memoryview) -> Span:
    if len(span) > MAX_SPAN_BYTES:
        raise SpanError(f"the span is larger than {MAX_SPAN_BYTES} bytes")
    return Span.FromString(bytes(span))


def _groups_in_json(content: bytes) -> Iterator[SpanGroup]:
    request = json.loads(content)
    for resource_spans in _objects(request, "resourceSpans"):
        resource = _parsed(resource_spans.get("resource"), Resource())
        for scope_spans in _objects(resource_spans, "scopeSpans"):
            scope = _parsed(scope_spans.get("scope"), InstrumentationScope())
            yield SpanGroup(resource, scope, _list(scope_spans, "spans"), _read_json)


def _list(holder: Any, key: str) -> list[Any]:
    """Null is absent in the JSON of protobuf; any other value that is no list is none."""
    if not isinstance(holder, dict):
        raise TypeError(key)
    found = holder.get(key)
    if not isinstance(found, list | None):
        raise TypeError(key)
    return found or []


def _objects(holder: Any, key: str) -> list[dict[str, Any]]:
    found = _list(holder, key)
    if not all(isinstance(item, dict) for item in found):
        raise TypeError(key)
    return found


def _parsed(value: Any, message: Message) -> Any:
    """Unknown fields are ignored, as the specification asks."""
    return ParseDict(value, message, ignore_unknown_fields=True) if value is not None else message


def _read_json(span: Any) -> Span:
    """OTLP departs from the JSON of protobuf in one thing: ids are hexadecimal, not base64."""
    read: Span = _parsed({**_with_ids(span), "links": [_with_ids(link) for link in _list(span, "links")]}, Span())
    return read


def _with_ids(holder: dict[str, Any]) -> dict[str, Any]:
    try:
        ids = {key: base64.b64encode(bytes.fromhex(holder[key])).decode() for key in _ID_FIELDS if holder.get(key)}
    except ValueError:
        raise SpanError("an id is not hexadecimal") from None
    return {**holder, **ids}


def _too_many() -> TooLargeError:
    return TooLargeError(f"The request holds more than {MAX_SPANS} spans; send them in smaller batches.", code="too_many_spans")
