"""The header fields of a request, sorted by name once, however often somebody asks for one."""

from collections.abc import Iterable


class Head:
    """Header fields as ASGI gives them: names in lower case, values as bytes (which stand for latin-1, RFC 9110, 5.5)."""

    __slots__ = ("_values",)

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            self._values.setdefault(name, []).append(value)

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field, as it came."""
        return self._values.get(name, [])

    def first(self, name: bytes) -> str | None:
        """The value of a field that should stand there once."""
        values = self._values.get(name)
        return values[0].decode("latin-1") if values else None

    def joined(self, name: bytes) -> str:
        """The values of a field that is a list, which may come in several lines (RFC 9110, 5.3)."""
        values = self._values.get(name)
        return b",".join(values).decode("latin-1") if values else ""
