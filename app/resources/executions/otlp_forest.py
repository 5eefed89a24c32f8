"""Hangs spans below their parents, in whatever order they arrive, and never in a circle."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID


class SpanKey(NamedTuple):
    """What names a span in an organization; lower-case hexadecimal."""

    trace_id: str
    span_id: str


@dataclass(slots=True)
class Sprout:
    """A span that is to be stored."""

    id: UUID
    key: SpanKey
    parent: SpanKey | None
    parent_id: UUID | None = None
    root_id: UUID | None = None


class Stored(NamedTuple):
    """A stored span and the root of its tree."""

    id: UUID
    root_id: UUID
    is_running: bool = False


class Waiting(NamedTuple):
    """A stored root whose parent had not arrived yet."""

    id: UUID
    parent: SpanKey


class Grafted(NamedTuple):
    """A stored tree that goes below another: its old root, its new root, and the old root's parent."""

    id: UUID
    root_id: UUID
    parent_id: UUID


def plant(new: Iterable[Sprout], stored: Mapping[SpanKey, Stored], waiting: Iterable[Waiting]) -> tuple[list[Sprout], list[Grafted]]:
    """Give each new span its parent and root; returns them parents first, and the stored trees that now go below new spans.

    A span whose parent would be in its own tree, which only a forged batch claims, stays a root. Cost: almost linear.
    """
    sprouts = {sprout.key: sprout for sprout in new}
    roots = _Roots()
    for sprout in sprouts.values():
        parent = _parent_of(sprout, sprouts, stored)
        if parent is not None and roots.join(sprout.id, parent.root_id):
            sprout.parent_id = parent.id
    grafted = []
    for tree in waiting:
        parent_id = sprouts[tree.parent].id
        if roots.join(tree.id, parent_id):
            grafted.append((tree.id, parent_id))
    for sprout in sprouts.values():
        sprout.root_id = roots.of(sprout.id)
    return _parents_first(sprouts.values()), [Grafted(id_, roots.of(id_), parent_id) for id_, parent_id in grafted]


def _parent_of(sprout: Sprout, sprouts: Mapping[SpanKey, Sprout], stored: Mapping[SpanKey, Stored]) -> Stored | None:
    if sprout.parent is None:
        return None
    beside = sprouts.get(sprout.parent)
    return Stored(beside.id, beside.id) if beside is not None else stored.get(sprout.parent)


def _parents_first(sprouts: Iterable[Sprout]) -> list[Sprout]:
    below: defaultdict[UUID | None, list[Sprout]] = defaultdict(list)
    for sprout in sprouts:
        below[sprout.parent_id].append(sprout)
    new_ids = {sprout.id for sprout in sprouts}
    ordered = [sprout for parent_id, children in below.items() if parent_id not in new_ids for sprout in children]
    for sprout in ordered:  # grows while it is walked
        ordered.extend(below.get(sprout.id, ()))
    return ordered


class _Roots:
    """Which tree each root has become a part of (union-find)."""

    def __init__(self) -> None:
        self._above: dict[UUID, UUID] = {}

    def of(self, id_: UUID) -> UUID:
        """The root of the tree that this root is in now."""
        path = []
        while id_ in self._above:
            path.append(id_)
            id_ = self._above[id_]
        for passed in path:
            self._above[passed] = id_
        return id_

    def join(self, root: UUID, id_: UUID) -> bool:
        """Put the tree of ``root`` into that of ``id_``, unless they are one already."""
        above = self.of(id_)
        if above == root:
            return False
        self._above[root] = above
        return True
