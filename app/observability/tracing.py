"""What a span of a request says, and of which requests there are spans. Costs next to nothing while nothing is traced."""

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Span, format_trace_id

_PROBES: Final = frozenset({"/livez", "/readyz", "/metrics"})
# Where traces come in: a service that sends its own to itself would never fall silent.
_TRACES_IN: Final = "/otlp/v1/traces"
_PREFIX: Final = "saasbase."


def is_untraced(scope: MutableMapping[str, Any]) -> bool:
    """Whether there is to be no span of a request."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in _PROBES or path.endswith(_TRACES_IN)


def span_of_request(scope: Mapping[str, Any]) -> Span:
    """The span FastAPI has begun for the request that is served now; one that records nothing when there is none.

    It has the whole query by then, and a query is what a caller makes of it: no part of that is told.
    """
    span = trace.get_current_span()
    if scope.get("query_string") and span.is_recording():
        span.set_attribute("url.query", "REDACTED")
    return span


def trace_id_of(span: Span) -> str | None:
    """The id of its trace in 32 hexadecimal digits."""
    context = span.get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


def describe(span: Span, method: str, route: str | None, told: Mapping[str, str | None]) -> None:
    """Name a span that is recording by its route and let it say the rest; before the answer has left, with which the span ends."""
    if route is not None:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    span.set_attributes({_PREFIX + name: value for name, value in told.items() if value is not None})
