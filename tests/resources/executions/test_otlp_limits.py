"""What the intake of spans refuses, how little it does for it, and what it costs."""

import gzip
import tracemalloc
import zlib
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from sqlalchemy import event

from app.resources.executions.otlp_wire import MAX_BYTES, MAX_PACKED_BYTES, MAX_SPAN_BYTES, MAX_SPANS, PROTOBUF
from app.resources.executions.schemas import MAX_TOKENS
from tests.conftest import Caller, Service
from tests.support.answers import count_rows, events_of, read_problem
from tests.support.database import behind
from tests.support.record import new_place
from tests.support.spans import BEGIN, SECOND, family, new_trace, path_of, request_of, send, span, span_id, stored
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

TRACE = new_trace()
DAY = 86400 * SECOND


def packed_protobuf(*spans: Any) -> bytes:
    """The same request in protobuf; ids are given as protobuf's own JSON has them."""
    return ParseDict(request_of(*spans), ExportTraceServiceRequest()).SerializeToString()


async def post(caller: Caller, project: Any, content: Any, **headers: str) -> Any:
    sent = {"content-type": PROTOBUF, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await caller.post(path_of(project), None, None, content=content, headers=sent)


async def test_spans_that_cannot_be_accepted_are_counted_and_the_others_stored(alice: Caller) -> None:
    _, project = await new_place(alice)
    ahead = str(BEGIN + 10_000 * DAY)
    bad = [
        span("", span_id(1)),
        span("0" * 32, span_id(1)),
        span(TRACE[:30], span_id(1)),
        span(TRACE, "0" * 16),
        span(TRACE, span_id(1) + "00"),
        span(TRACE, span_id(1), "abcd"),
        span("g" * 32, span_id(1)),
        span(TRACE, span_id(1), startTimeUnixNano="0"),
        span(TRACE, span_id(1), startTimeUnixNano="1763662316062"),  # milliseconds
        span(TRACE, span_id(1), startTimeUnixNano=ahead, endTimeUnixNano=ahead),
        span(TRACE, span_id(1), startTimeUnixNano=str(2**64 - 1), endTimeUnixNano="0"),
        span(TRACE, span_id(1), endTimeUnixNano=ahead),
        span(TRACE, span_id(1), endTimeUnixNano=str(BEGIN - 1000)),
        span(TRACE, span_id(1), startTimeUnixNano="-1"),
        span(TRACE, span_id(1), name=7),
        span(TRACE, span_id(1), name="\ud800"),
        {**span(TRACE, span_id(1)), "attributes": "none"},
        {**span(TRACE, span_id(1)), "links": [None]},
        "no span",
        None,
    ]
    answer = (await send(alice, project, *bad, span(TRACE, span_id(2), unknownField={"a": 1}))).json()["partialSuccess"]
    assert answer["rejectedSpans"] == str(len(bad))
    assert answer["errorMessage"].count(" rejected: ") == 7
    assert "1 rejected: an id is not hexadecimal" in answer["errorMessage"]
    assert set(await stored(alice, project)) == {span_id(2)}
    (event_,) = await events_of(alice, action="EXECUTIONS_IMPORTED")
    assert (event_["details"]["stored"], event_["details"]["rejected"]) == (1, len(bad))


async def test_in_protobuf_too_each_span_stands_for_itself(alice: Caller) -> None:
    _, project = await new_place(alice)
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number, name in ((1, "good"), (2, "_broken_"), (3, "x" * MAX_SPAN_BYTES)):
        scope.spans.add(
            trace_id=bytes.fromhex(TRACE), span_id=number.to_bytes(8), name=name, start_time_unix_nano=BEGIN, end_time_unix_nano=BEGIN
        )
    content = request.SerializeToString().replace(b"_broken_", b"_\xff\xfe\xfd____")  # no UTF-8
    response = await post(alice, project, content)
    assert (response.status_code, response.headers["content-type"]) == (200, PROTOBUF)
    answer = ExportTraceServiceResponse.FromString(response.content).partial_success
    assert (answer.rejected_spans, "larger than" in answer.error_message, "cannot be decoded" in answer.error_message) == (2, True, True)
    assert set(await stored(alice, project)) == {span_id(1)}
    whole = await post(alice, project, gzip.compress(content[:0]), content_encoding="gzip")
    assert (whole.status_code, whole.content) == (200, b"")


async def test_only_protobuf_and_json_and_only_gzip_are_taken(alice: Caller) -> None:
    _, project = await new_place(alice)
    for headers in ({"content_type": "text/plain"}, {"content_type": ""}, {"content_type": "application/json-seq"}):
        read_problem(await post(alice, project, b"", **headers), 415, "unsupported_media_type")
    for coding in ("br", "deflate", "gzip, gzip"):
        read_problem(await post(alice, project, b"", content_encoding=coding), 415, "unsupported_media_type")
    for coding in ("identity", "GZIP"):
        content = gzip.compress(b"{}") if coding == "GZIP" else b"{}"
        answer = await post(alice, project, content, content_type="application/json; charset=utf-8", content_encoding=coding)
        assert (answer.status_code, answer.json()) == (200, {})


async def test_what_cannot_be_decoded_is_a_bad_request(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    good = packed_protobuf({"name": "n"})
    for content in (b"hello", b"\x0a", good[:-1], good + b"\x0b", b"\x0a\x03abc", b"\xff" * 20, b"\x02\x00"):
        read_problem(await post(alice, project, content), 400, "broken_otlp")
    for content in (b"", b"{", b"[]", b"1", b'{"resourceSpans": {"a": 1}}', b'{"resourceSpans": [1]}', b"\xff\xff", b"[" * 100_000):
        read_problem(await post(alice, project, content, content_type="application/json"), 400, "broken_otlp")
    half = gzip.compress(good)
    for content in (b"", b"hello", half[:-1], half[:12], half + half, half + b"x"):
        read_problem(await post(alice, project, content, content_encoding="gzip"), 400, "broken_gzip")
    assert await count_rows(service, "executions") == 0


async def test_a_bomb_is_refused_and_not_inflated(alice: Caller) -> None:
    _, project = await new_place(alice)
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1024**2)) for _ in range(1024)) + packer.flush()
    assert len(bomb) < 2 * 1024**2
    tracemalloc.start()
    try:
        read_problem(await post(alice, project, bomb, content_encoding="gzip"), 413, "too_large")
        read_problem(await post(alice, project, bomb, content_encoding="gzip", content_type="application/json"), 413, "too_large")
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_BYTES[PROTOBUF]
    finally:
        tracemalloc.stop()


async def test_bodies_have_limits(alice: Caller) -> None:
    _, project = await new_place(alice)
    for media_type, coding, limit in (
        (PROTOBUF, "", MAX_BYTES[PROTOBUF]),
        ("application/json", "", MAX_BYTES["application/json"]),
        (PROTOBUF, "gzip", MAX_PACKED_BYTES),
    ):

        async def endless(limit: int = limit) -> Any:
            for _ in range(limit // 1024**2 + 1):
                yield bytes(1024**2)

        for content in (bytes(limit + 1), endless()):
            read_problem(await post(alice, project, content, content_type=media_type, content_encoding=coding), 413, "too_large")


async def test_a_request_has_at_most_ten_thousand_spans(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    one, empty_groups = ScopeSpans(), ExportTraceServiceRequest()
    for _ in range(MAX_SPANS + 1):
        one.spans.add()
    for _ in range(10 * MAX_SPANS):
        empty_groups.resource_spans.add()
    too_many = ExportTraceServiceRequest()
    too_many.resource_spans.add().scope_spans.append(one)
    for request in (too_many, empty_groups):
        read_problem(await post(alice, project, request.SerializeToString()), 413, "too_many_spans")
    del one.spans[0]
    too_many.resource_spans[0].scope_spans[0].CopyFrom(one)
    answer = await post(alice, project, too_many.SerializeToString())
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == MAX_SPANS
    assert await count_rows(service, "executions") == 0


async def test_the_number_of_statements_does_not_grow_with_the_spans(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)

    async def counted(count: int) -> int:
        session = {"attributes": [{"key": "session.id", "value": {"stringValue": "s"}}]}
        spans = [{**one, **session} if number % 3 else one for number, one in enumerate(family(new_trace(), count))]
        await send(alice, project, *({**one, "endTimeUnixNano": "0"} for one in spans[2::2]))
        with statements_of_requests(service.runtime.context.database) as sent:
            await send(alice, project, *spans)
        return len(sent)

    few, many = await counted(6), await counted(400)
    assert few == many <= 12
    rows = (await alice.get("/executions", params={"size": 500})).json()["items"]
    assert (len(rows), len({row["root_execution_id"] for row in rows})) == (406, 2)


async def test_a_trace_is_read_however_many_tokens_its_spans_tell_together(alice: Caller) -> None:
    _, project = await new_place(alice)
    trace, most = new_trace(), {"gen_ai.usage.input_tokens": MAX_TOKENS}
    below = [span(trace, span_id(number), span_id(1), attributes=most) for number in (2, 3, 4)]
    await send(alice, project, span(trace, span_id(1)), *below)
    top = (await stored(alice, project))[span_id(1)]["id"]
    totals = (await alice.get(f"/executions/{top}/tree")).json()["root"]["totals"]
    assert totals["usage"]["input_tokens"] == 3 * MAX_TOKENS
    assert (await alice.get(f"/executions/{top}/timeline")).json()["totals"] == totals


async def test_spans_are_found_by_their_indexes(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()
    await send(alice, project, span(trace, span_id(2), span_id(1)))
    database = service.runtime.context.database
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        statements.append((statement, parameters))

    event.listen(database.writer.sync_engine, "before_cursor_execute", note)
    await send(alice, project, span(trace, span_id(1)))
    event.remove(database.writer.sync_engine, "before_cursor_execute", note)
    for part, index in (
        ("span_id IS NOT NULL", "ix_executions_waiting_span"),
        ("UPDATE executions", "ix_executions_organization_id_root_execution_id"),
        (", executions.span_id)", "ix_executions_span"),
    ):
        statement, parameters = next(one for one in statements if part in one[0])
        async with behind(database) as connection:
            if not database.is_sqlite:
                await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = await connection.exec_driver_sql(("EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN ") + statement, parameters)
            assert index in str(plan.all()), index
