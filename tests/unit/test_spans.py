"""The pure parts of the intake of spans: trees from any order of arrival, values cut to fit, and a decoder that nothing upsets."""

import json
from itertools import pairwise
from typing import Any
from uuid import UUID

from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from app.core.errors import BadRequestError, TooLargeError
from app.core.identifiers import new_id
from app.core.text import check_json
from app.resources.executions.otlp_forest import SpanKey, Sprout, Stored, Waiting, plant
from app.resources.executions.otlp_service import read_batch
from app.resources.executions.otlp_values import fitted
from app.resources.executions.otlp_wire import JSON, PROTOBUF

COUNT = 12
PARENTS = st.lists(st.one_of(st.none(), st.integers(0, COUNT + 1)), min_size=COUNT, max_size=COUNT)
ORDER = st.permutations(range(COUNT))
CUTS = st.sets(st.integers(1, COUNT - 1))


class Table:
    """The stored spans, and the statements of the repository over them."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Sprout] = {}

    def take_in(self, batch: list[Sprout]) -> None:
        stored = {row.key: Stored(row.id, row.root_id or row.id) for row in self.rows.values()}
        keys = {sprout.key for sprout in batch}
        orphans = [row for row in self.rows.values() if row.parent_id is None]
        waiting = [Waiting(row.id, row.parent) for row in orphans if row.parent is not None and row.parent in keys]
        planted, grafted = plant(batch, stored, waiting)
        for sprout in planted:
            assert sprout.parent_id is None or sprout.parent_id in self.rows, "a child would be written before its parent"
            self.rows[sprout.id] = sprout
        for tree in grafted:
            self.rows[tree.id].parent_id = tree.parent_id
        for tree in grafted:
            for row in self.rows.values():
                if row.root_id == tree.id:
                    row.root_id = tree.root_id

    def root_of(self, row: Sprout) -> UUID:
        """Walked up, step by step; fails on a circle."""
        for _ in range(COUNT + 1):
            if row.parent_id is None:
                return row.id
            row = self.rows[row.parent_id]
        raise AssertionError("a circle")


def key(number: int) -> SpanKey:
    return SpanKey("trace", str(number))


@settings(deadline=None)  # a busy machine is no fault
@given(PARENTS, ORDER, CUTS)
@example([1, 2, 0, *[None] * 9], list(range(COUNT)), {1, 2})
def test_whatever_spans_claim_and_however_they_arrive_the_trees_are_trees(
    parents: list[int | None], order: list[int], cuts: set[int]
) -> None:
    table = Table()
    bounds = [0, *sorted(cuts), COUNT]
    for start, end in pairwise(bounds):
        batch = [(number, parents[number]) for number in order[start:end]]
        table.take_in([Sprout(new_id(), key(number), key(parent) if parent is not None else None) for number, parent in batch])
    rows = {row.key: row for row in table.rows.values()}
    assert len(rows) == COUNT
    for row in rows.values():
        assert row.root_id == table.root_of(row)
    opened = 0
    for number, parent in enumerate(parents):
        row = rows[key(number)]
        if parent is None or key(parent) not in rows:
            assert row.parent_id is None
        else:
            assert row.parent_id in {None, rows[key(parent)].id}
            opened += row.parent_id is None
    assert opened == circles(parents)


def circles(parents: list[int | None]) -> int:
    """How many circles the claims make: one link of each has to go."""
    found = set()
    for start in range(COUNT):
        path: list[int] = []
        place: int | None = start
        while place is not None and place < COUNT and place not in path:
            path.append(place)
            place = parents[place]
        if place in path:
            found.add(frozenset(path[path.index(place) :]))
    return len(found)


def test_a_chain_of_ten_thousand_needs_no_recursion() -> None:
    chain = [Sprout(new_id(), key(number), key(number - 1) if number else None) for number in range(10_000)]
    planted, _ = plant(reversed(chain), {}, ())
    assert [sprout.key for sprout in planted] == [sprout.key for sprout in chain]
    assert {sprout.root_id for sprout in planted} == {chain[0].id}


SCALARS = st.one_of(
    st.builds(AnyValue, string_value=st.text(st.characters(exclude_categories=["Cs"]), max_size=300)),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.floats()),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=300)),
    st.just(AnyValue()),
)


def _deeper(inner: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    arrays = st.lists(inner, max_size=5).map(lambda values: AnyValue(array_value=ArrayValue(values=values)))
    return arrays | pairs(inner).map(lambda values: AnyValue(kvlist_value=KeyValueList(values=values)))


def pairs(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[list[KeyValue]]:
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return st.lists(st.builds(lambda name, value: KeyValue(key=name, value=value), names, values), max_size=5)


@settings(deadline=None)
@example([KeyValue(key="k", value=AnyValue(string_value="\x00" * 900))], 1000)
@given(pairs(st.recursive(SCALARS, _deeper)), st.sampled_from([100, 1000, 65536]))
def test_what_is_written_is_json_that_fits(attributes: list[KeyValue], max_bytes: int) -> None:
    written = fitted(lambda writer: writer.attributes(attributes), max_bytes)
    check_json(written)
    assert check_json_size(written) <= max_bytes


def check_json_size(value: Any) -> int:
    """The size as ``check_json`` counts it."""
    if isinstance(value, dict):
        return 2 + sum(len(name.encode()) + 4 + check_json_size(item) for name, item in value.items())
    if isinstance(value, list):
        return 2 + len(value) + sum(map(check_json_size, value))
    return len(value.encode()) + 2 if isinstance(value, str) else len(repr(value))


def a_request() -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add(schema_url="https://example.org")
    group.resource.attributes.add(key="service.name").value.string_value = "tagger"
    scope = group.scope_spans.add(schema_url="https://example.org")
    scope.scope.name = "library"
    for number in (1, 2):
        span = scope.spans.add(trace_id=bytes(15) + b"1", span_id=number.to_bytes(8), name="n", start_time_unix_nano=1763662316062552000)
        span.attributes.add(key="gen_ai.operation.name").value.string_value = "chat"
    return request.SerializeToString()


GOOD = a_request()


def read(content: bytes, media_type: str) -> int:
    """How many spans were read; any error but the two that are promised gets out."""
    try:
        batch = read_batch(lambda: content, media_type)
    except (BadRequestError, TooLargeError):
        return 0
    return len(batch.spans)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_upset_the_decoder(content: bytes) -> None:
    read(content, PROTOBUF)
    read(content, JSON)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_damage_to_a_request_upsets_the_decoder(damage: list[tuple[int, int]]) -> None:
    assert read(GOOD, PROTOBUF) == 2
    content = bytearray(GOOD)
    for place, byte in damage:
        content[place] = byte
    read(bytes(content), PROTOBUF)


NAMES = ["resourceSpans", "scopeSpans", "spans", "resource", "scope", "attributes", "key", "value", "traceId", "spanId", "links", "events"]
NAMES += ["stringValue", "intValue", "arrayValue", "values", "name", "kind", "status", "code", "startTimeUnixNano", "flags", "bytesValue"]
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1763662316062552000", "ab" * 16, "ab" * 8]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), ANY_JSON, max_size=8))
def test_no_json_upsets_the_decoder(span: dict[str, Any]) -> None:
    for request in (span, {"resourceSpans": [{**span, "scopeSpans": [{**span, "spans": [span, {"name": "n", **span}]}]}]}):
        read(json.dumps(request).encode(), JSON)
