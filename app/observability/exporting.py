"""Sends spans by OTLP, as the standard environment variables say. Imported only when traces are on: its libraries are an extra."""

import asyncio
import logging
import os
import string
import threading
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

_log = logging.getLogger(__name__)

SERVICE: Final = "saasbase-server"
FLUSH_SECONDS: Final = 5.0
MAX_VALUE: Final = 4096
_UNNAMED: Final = "unknown_service"
_EXPORTER_VARIABLES: Final = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
}
_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# Where the libraries say, for every batch, why it could not be sent, and how many spans were lost meanwhile.
_REASONS: Final = logging.getLogger("opentelemetry.exporter")
_LOSSES: Final = logging.getLogger("opentelemetry.sdk._shared_internal")


class Tracing:
    """Spans of this process, collected in memory and sent from a thread of their own. When more than 2,048 wait, the oldest are lost."""

    def __init__(self, version: str) -> None:
        """Begin; nothing is sent before there are spans.

        Raises:
            ValueError: an environment variable of OpenTelemetry has a value that cannot be used.
        """
        for name, only in _EXPORTER_VARIABLES.items():
            if os.environ.get(name, "").strip().lower() not in {"", only}:
                raise ValueError(f"{name}: only {only} is supported")
        for name in _ENDPOINT_VARIABLES:
            _require_url(name, os.environ.get(name, "").strip())
        self.provider = TracerProvider(resource=_resource(version), span_limits=_limits(), shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(_QuietExporter(OTLPSpanExporter())))

    async def aclose(self) -> None:
        """Send what is left, as far as that can be done in a few seconds; what cannot be sent is lost, which the log says."""
        thread = threading.Thread(target=self.provider.shutdown, name="last spans", daemon=True)  # one that hangs is left behind
        thread.start()
        await asyncio.to_thread(thread.join, FLUSH_SECONDS)
        if thread.is_alive():
            _log.warning("the last traces could not be sent in %g seconds, and are lost", FLUSH_SECONDS)


class _QuietExporter(SpanExporter):
    """Logs once that spans cannot be sent, with the reason, and once that they can be again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False
        self._reason = _Reason()
        _REASONS.propagate = False
        _REASONS.addHandler(self._reason)
        _LOSSES.addFilter(self._is_news)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See ``SpanExporter.export``."""
        self._reason.said = ""
        result = self._exporter.export(spans)
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing != self._is_failing:
            self._is_failing = is_failing
            if is_failing:
                _log.warning("traces cannot be sent, and are lost until they can: %s", self._reason.said)
            else:
                _log.info("traces are sent again")
        return result

    def shutdown(self) -> None:
        """See ``SpanExporter.shutdown``."""
        _REASONS.removeHandler(self._reason)
        _LOSSES.removeFilter(self._is_news)
        self._exporter.shutdown()

    def _is_news(self, _record: logging.LogRecord) -> bool:
        return not self._is_failing


class _Reason(logging.Handler):
    """Keeps the first thing the library says about a batch."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = self.said or record.getMessage()


def _require_url(name: str, value: str) -> None:
    """The libraries find out when they send, and only the log would know."""
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and not set(value) & set(string.whitespace)
    except ValueError:  # a port that is no number, or brackets around no address
        is_url = False
    if value and not is_url:
        raise ValueError(f"{name}: is not a URL like http://collector:4318")


def _limits() -> SpanLimits:
    """Those of the environment; without one for the length of a value a limit of ours, because a path is as long as a caller likes."""
    found = SpanLimits()
    return found if found.max_span_attribute_length is not None else SpanLimits(max_span_attribute_length=MAX_VALUE)


def _resource(version: str) -> Resource:
    """What the environment says of this service, and what it is called when that says nothing."""
    found = Resource.create()
    ours: dict[str, Any] = {SERVICE_VERSION: found.attributes.get(SERVICE_VERSION, version)}
    if str(found.attributes[SERVICE_NAME]).startswith(_UNNAMED):
        ours[SERVICE_NAME] = SERVICE
    return found.merge(Resource(ours))
