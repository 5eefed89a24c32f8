"""Attributes of OpenTelemetry as JSON that both databases take, cut to fit."""

import base64
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a value is kept."""

    characters: int
    items: int
    depth: int


# Tried one after the other until what is written fits; what fits none of them is left out.
_STEPS: Final = (Limits(2**20, 1000, 16), Limits(4096, 256, 8), Limits(256, 64, 6), Limits(64, 16, 4))
_MARK: Final = {"truncated": True}
_MARK_BYTES: Final = 24


class _FullError(Exception):
    """There is more than fits."""


def fitted(write: Callable[["JsonWriter"], dict[str, Any]], max_bytes: int) -> dict[str, Any]:
    """What ``write`` makes, in at most ``max_bytes`` of JSON; ``truncated`` stands in it when something was cut."""
    for limits in _STEPS:
        writer = JsonWriter(limits, max_bytes - _MARK_BYTES)
        try:
            written = write(writer)
        except _FullError:
            continue
        return {**written, **_MARK} if writer.has_cut else written
    return {**_MARK}


class JsonWriter:
    """Writes values within limits and counts what they take; never more work than ``max_bytes`` of output."""

    def __init__(self, limits: Limits, max_bytes: int) -> None:
        self.has_cut = False
        self._limits = limits
        self._left = max_bytes

    def string(self, value: str) -> str:
        """A text; NUL, which PostgreSQL does not take, becomes the replacement character."""
        if len(value) > self._limits.characters:
            value, self.has_cut = value[: self._limits.characters], True
        value = value.replace("\x00", "\ufffd")
        self.take(4 + (len(value) if value.isascii() else len(value.encode())))
        return value

    def attributes(self, pairs: Iterable[KeyValue], depth: int = 0) -> dict[str, Any]:
        """An object with a member for each pair."""
        written = {}
        for count, pair in enumerate(pairs):
            if count == self._limits.items:
                self.has_cut = True
                break
            written[self.string(pair.key)] = self.value(pair.value, depth + 1)
        return written

    def each(self, things: Iterable[Any], write: Callable[[Any], Any]) -> list[Any]:
        """An array; the first of too many."""
        written = [write(thing) for thing in islice(things, self._limits.items + 1)]
        if len(written) > self._limits.items:
            self.has_cut = True
            written.pop()
        return written

    def number(self, value: float) -> int | float | str:
        """A number; JSON has none that is not finite, so those are told by name, as protobuf does."""
        if not math.isfinite(value):
            return self.string(json.dumps(value))
        self.take(2 + len(repr(value)))
        return value

    def value(self, any_value: AnyValue, depth: int = 0) -> Any:
        """A value of any kind; bytes become base64."""
        match any_value.WhichOneof("value"):
            case "string_value":
                written: Any = self.string(any_value.string_value)
            case "bool_value":
                self.take(6)
                written = any_value.bool_value
            case "int_value":
                written = self.number(any_value.int_value)
            case "double_value":
                written = self.number(any_value.double_value)
            case "bytes_value":
                written = self.string(base64.b64encode(any_value.bytes_value[: self._limits.characters]).decode())
            case "array_value" | "kvlist_value" if depth >= self._limits.depth:
                self.take(5)
                self.has_cut, written = True, None
            case "array_value":
                self.take(2)
                written = self.each(any_value.array_value.values, lambda item: self.value(item, depth + 1))
            case "kvlist_value":
                self.take(2)
                written = self.attributes(any_value.kvlist_value.values, depth)
            case _:
                self.take(5)
                written = None
        return written

    def take(self, size: int) -> None:
        """Count bytes of output."""
        self._left -= size
        if self._left < 0:
            raise _FullError
