"""Refused attempts wait in memory until they are durable."""

from typing import Any
from uuid import UUID, uuid4

from app.audit.denials import MAX_KEYS, DeniedAttempts
from app.core.actors import Actor, ActorType, Identity

MALLORY = Identity(Actor(ActorType.USER, "mallory"), "header")


def refuse(denials: DeniedAttempts, resource_id: UUID, asked: str = "DOCUMENT_READ") -> None:
    event: dict[str, Any] = {"id": uuid4(), "resource_id": resource_id, "details": {"asked_action": asked}}
    denials.add(MALLORY, event, asked)


def attempts(denials: DeniedAttempts, *, all_of_them: bool = False) -> list[int]:
    return [event["details"]["attempts"] for event in denials.due(all_of_them=all_of_them).values()]


def test_what_was_not_written_is_due_again() -> None:
    denials, document = DeniedAttempts(), uuid4()
    refuse(denials, document)
    assert attempts(denials) == [1]
    assert attempts(denials) == [1], "the first write may have failed"
    denials.mark_written(denials.due())
    assert attempts(denials, all_of_them=True) == []


def test_what_comes_while_a_batch_is_written_is_not_lost() -> None:
    denials, document = DeniedAttempts(), uuid4()
    refuse(denials, document)
    batch = denials.due()
    refuse(denials, document)
    refuse(denials, document)
    denials.mark_written(batch)
    assert attempts(denials) == [], "one row a minute for the same caller, thing and action"
    assert attempts(denials, all_of_them=True) == [2]


def test_different_things_and_actions_are_told_apart() -> None:
    denials, document = DeniedAttempts(), uuid4()
    refuse(denials, document)
    refuse(denials, document, "DOCUMENT_WRITE")
    refuse(denials, uuid4())
    assert attempts(denials) == [1, 1, 1]


def test_memory_is_bounded() -> None:
    denials = DeniedAttempts()
    for _ in range(MAX_KEYS + 3):
        refuse(denials, uuid4())
    assert len(denials.due()) == MAX_KEYS
    assert denials.overflow == 3
