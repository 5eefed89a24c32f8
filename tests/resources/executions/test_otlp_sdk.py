"""The OpenTelemetry SDK and its OTLP exporter as agents use them, over a socket."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from tests.support.server import Server


class Tenant:
    """An organization on a running server, a project in it, and a key that may send spans there."""

    def __init__(self, server: Server, slug: str, open_: ExitStack) -> None:
        named = {"X-SaaSBase-Actor": f"user:{slug}"}
        self.client = open_.enter_context(httpx.Client(base_url=f"{server.url}/api", headers=named, timeout=30))
        self._open = open_
        organization = self.post("/organizations", slug=slug)
        self.project = self.post("/projects", organization_id=organization["id"], name="agents")
        scope = {"scope_type": "PROJECT", "scope_id": self.project["id"], "role": "PROJECT_EDITOR"}
        self.token = self.post("/api-keys", name="exporter", **scope, actions=["EXECUTION_CREATE"])["token"]
        self.endpoint = f"{server.url}/api/projects/{self.project['id']}/otlp/v1/traces"

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(path, json=body).raise_for_status().json()

    def get(self, path: str, **params: Any) -> Any:
        return self.client.get(path, params=params).raise_for_status().json()

    def exporter(self, *, token: str | None = None) -> SpanExporter:
        return self._until_closed(OTLPSpanExporter(self.endpoint, headers={"Authorization": f"Bearer {token or self.token}"}))

    def exporter_of_environment(self, environment: pytest.MonkeyPatch) -> SpanExporter:
        """One that is told everything as the README says."""
        environment.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", self.endpoint)
        environment.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"Authorization=Bearer%20{self.token}")
        environment.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
        return self._until_closed(OTLPSpanExporter())

    def _until_closed(self, exporter: SpanExporter) -> SpanExporter:
        self._open.callback(exporter.shutdown)
        return exporter


@pytest.fixture
def open_() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


@contextmanager
def tracing(*exporters: SpanExporter) -> Iterator[Tracer]:
    """A tracer of a program that sends its spans as each ends: children before their parents."""
    provider = TracerProvider(resource=Resource.create({"service.name": "tagger"}))
    for exporter in exporters:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("agents", "1.2")
    assert isinstance(tracer, Tracer)
    try:
        yield tracer
    finally:
        provider.shutdown()


def run_agent(tracer: Tracer) -> None:
    """What an instrumented agent does: it thinks, uses a tool that breaks, and thinks again."""
    with tracer.start_as_current_span("invoke_agent tagger", kind=SpanKind.INTERNAL) as agent:
        agent.set_attributes({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "tagger", "gen_ai.conversation.id": "c-1"})
        for number in (1, 2):
            with tracer.start_as_current_span(f"chat {number}", kind=SpanKind.CLIENT) as chat:
                chat.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.response.model": "m-1"})
                chat.set_attributes({"gen_ai.usage.input_tokens": 10 * number, "gen_ai.usage.output_tokens": number})
            if number == 1:
                with suppress(KeyError):
                    use_tool(tracer)


def use_tool(tracer: Tracer) -> None:
    """A tool that calls a service and then breaks."""
    with tracer.start_as_current_span("execute_tool search") as tool:
        tool.set_attributes({"gen_ai.operation.name": "execute_tool", "error.type": "KeyError"})
        with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT) as call:
            call.set_attributes({"http.request.method": "GET", "list": ["a", "b"], "ratio": 0.5})
        raise KeyError("nothing found")


def told(span: ReadableSpan, spans: list[ReadableSpan]) -> Any:
    """The tree of spans as the SDK knows it."""
    assert span.context is not None
    below = [child for child in spans if child.parent is not None and child.parent.span_id == span.context.span_id]
    return [span.name, [told(child, spans) for child in sorted(below, key=lambda child: child.start_time or 0)]]


def read(node: Any) -> Any:
    return [node["operation"], [read(child) for child in node["children"]]]


def test_the_trace_of_an_agent_comes_back_as_its_tree(server: Server, open_: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = Tenant(server, "acme", open_)
    spans: list[ReadableSpan] = []
    for exporter in (tenant.exporter(), tenant.exporter_of_environment(monkeypatch)):
        memory = InMemorySpanExporter()
        with tracing(exporter, memory) as tracer:
            run_agent(tracer)
        spans += memory.get_finished_spans()
    rows = {row["span_id"]: row for row in tenant.get("/executions", size=500)["items"]}
    assert len(rows) == len(spans) == 10
    for top in [span for span in spans if span.parent is None]:
        assert top.context is not None
        tree = tenant.get(f"/executions/{rows[f'{top.context.span_id:016x}']['id']}/tree")["root"]
        own = [span for span in spans if span.context is not None and span.context.trace_id == top.context.trace_id]
        assert read(tree) == told(top, own)
        assert tree["totals"]["by_status"] == {"COMPLETED": 4, "FAILED": 1}
        assert tree["totals"]["usage"] == {"input_tokens": 30, "output_tokens": 3, "cached_tokens": 0, "reasoning_tokens": 0}
        assert (tree["kind"], tree["duration_ms"]) == (
            "AGENT",
            pytest.approx(((top.end_time or 0) - (top.start_time or 0)) / 1e6, abs=0.002),
        )
    tool = next(row for row in rows.values() if row["operation"] == "execute_tool search")
    assert (tool["status"], tool["kind"], tool["actor"]["type"]) == ("FAILED", "TOOL", "API_KEY")
    assert (tool["metadata"]["error_code"], tool["metadata"]["error_message"]) == ("KeyError", "KeyError: 'nothing found'")
    assert tool["metadata"]["otel"]["events"][0]["attributes"]["exception.type"] == "KeyError"
    call = next(row for row in rows.values() if row["operation"] == "GET")["metadata"]["otel"]
    assert (call["kind"], call["attributes"]) == ("CLIENT", {"http.request.method": "GET", "list": ["a", "b"], "ratio": 0.5})
    assert (call["resource"]["service.name"], call["scope"]) == ("tagger", {"name": "agents", "version": "1.2"})


def test_the_same_batch_from_ten_exporters_at_once_is_stored_once(server: Server, open_: ExitStack) -> None:
    tenant, memory = Tenant(server, "acme", open_), InMemorySpanExporter()
    with tracing(memory) as tracer:
        for _ in range(5):
            run_agent(tracer)
    spans = memory.get_finished_spans()
    batches = [spans if number % 2 else spans[::-1] for number in range(10)]
    with ThreadPoolExecutor(10) as threads:
        results = list(threads.map(lambda batch: tenant.exporter().export(batch), batches))
    assert results == [SpanExportResult.SUCCESS] * 10
    rows = tenant.get("/executions", size=500)["items"]
    assert len(rows) == len({(row["trace_id"], row["span_id"]) for row in rows}) == len(spans) == 25
    assert len([row for row in rows if row["parent_execution_id"] is None]) == 5


def test_the_exporter_is_told_when_it_may_not_send(server: Server, open_: ExitStack) -> None:
    tenant, other, memory = Tenant(server, "acme", open_), Tenant(server, "other", open_), InMemorySpanExporter()
    with tracing(memory) as tracer:
        run_agent(tracer)
    for token in (other.token, "sbk_unknown.unknown"):
        assert tenant.exporter(token=token).export(memory.get_finished_spans()) == SpanExportResult.FAILURE
    assert tenant.get("/executions")["items"] == other.get("/executions")["items"] == []
