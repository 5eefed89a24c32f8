"""Subjects: how an actor is written, and what is remembered of what callers write."""

import tracemalloc

import pytest

from app.core.actors import MAX_ACTOR_ID, Actor, ActorType, InvalidActorError


def test_a_subject_is_read_as_it_is_written_however_often() -> None:
    for _ in range(2):
        for text, expected in {
            "alice": Actor(ActorType.USER, "alice"),
            " Service : a:b ": Actor(ActorType.SERVICE, "a:b"),
            "user:" + " " * 10_000 + "bob": Actor(ActorType.USER, "bob"),
            "agent:" + "x" * MAX_ACTOR_ID: Actor(ActorType.AGENT, "x" * MAX_ACTOR_ID),
        }.items():
            assert Actor.from_subject(text) == expected
        for text in ("", "user:", "nobody:x", "user:" + "x" * (MAX_ACTOR_ID + 1), "user:a\x00b"):
            with pytest.raises(InvalidActorError):
                Actor.from_subject(text)


def test_what_callers_pad_their_names_with_is_not_remembered() -> None:
    tracemalloc.start()
    for number in range(2000):
        Actor.from_subject(f"user:{' ' * 30_000}{number}\N{GRINNING FACE}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2_000_000
