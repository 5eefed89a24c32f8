"""A server that takes spans by OTLP and keeps them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Kind = Span.SpanKind


@dataclass(slots=True)
class Collector:
    """What came in."""

    port: int = 0
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Span]:
        return [span for group in self._groups for scope in group.scope_spans for span in scope.spans]

    @property
    def requests(self) -> list[Span]:
        """Those of requests, in the order in which they began."""
        found = [span for span in self.spans if span.kind == Kind.SPAN_KIND_SERVER]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def below(self, parent: Span) -> list[Span]:
        found = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    @property
    def resources(self) -> list[dict[str, Any]]:
        return [attributes_of(group.resource) for group in self._groups]

    @property
    def _groups(self) -> list[Any]:
        return [group for body in self.bodies for group in ExportTraceServiceRequest.FromString(body).resource_spans]


def attributes_of(told: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in told.attributes}


@contextmanager
def run_collector(port: int = 0) -> Iterator[Collector]:
    """Take spans while the block lasts."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
