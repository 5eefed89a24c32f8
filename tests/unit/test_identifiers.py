"""Identifiers that sort by time."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier
from uuid import RFC_4122, UUID

import pytest

from app.core.identifiers import new_id


def test_an_identifier_is_a_uuid_of_version_7() -> None:
    for _ in range(1000):
        identifier = new_id()
        assert (identifier.version, identifier.variant) == (7, RFC_4122)
        assert identifier.int >> 76 & 0xF == 7
        assert identifier.int >> 62 & 0b11 == 0b10


def test_an_identifier_holds_the_time_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = new_id().int >> 80
    assert before <= milliseconds <= time.time_ns() // 1_000_000 + 5


def test_identifiers_increase_strictly() -> None:
    made = [new_id() for _ in range(50_000)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert [str(identifier) for identifier in made] == sorted(str(identifier) for identifier in made)


@pytest.mark.parametrize("step", [0, -1_000_000])
def test_identifiers_increase_while_the_clock_stands_still_or_goes_back(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    readings = itertools.count(time.time_ns(), step)
    monkeypatch.setattr(time, "time_ns", lambda: next(readings))
    made = [new_id() for _ in range(1000)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert len({identifier.int >> 64 for identifier in made}) == 1000  # by the counter, not by luck of the random part


def test_identifiers_of_many_threads_are_unique_and_increase_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: frozen)
    barrier = Barrier(8)

    def make() -> list[UUID]:
        barrier.wait()
        return [new_id() for _ in range(5000)]

    with ThreadPoolExecutor(8) as pool:
        lists = [future.result() for future in [pool.submit(make) for _ in range(8)]]
    for made in lists:
        assert made == sorted(made)
    assert len({identifier.int >> 64 for made in lists for identifier in made}) == 40_000


def test_identifiers_differ_in_their_random_part() -> None:
    assert len({new_id().int & (2**62 - 1) for _ in range(1000)}) == 1000
