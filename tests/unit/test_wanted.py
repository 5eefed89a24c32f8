"""What a request wants is had once, soon, and by nobody but whom it was found for."""

from uuid import uuid4

import pytest

from app.core.actors import Actor, ActorType, Asker, TokenGroups
from app.db import wanted as module
from app.db.wanted import MAX_AGE_SECONDS, Found, Wanted
from app.models import Document, Organization, Project

ID = uuid4()
KEY = Actor(ActorType.API_KEY, "k")
FOUND = Found(object())


def kept() -> Wanted:
    wanted = Wanted(Project.id, ID)
    wanted.keep(Asker(KEY), FOUND)
    return wanted


def test_it_is_had_once() -> None:
    wanted = kept()
    assert wanted.take(Asker(KEY), Project.id, ID) is FOUND
    assert wanted.take(Asker(KEY), Project.id, ID) is None
    assert Wanted(Project.id, ID).take(Asker(KEY), Project.id, ID) is None


@pytest.mark.parametrize(
    "asker",
    [
        Asker(Actor(ActorType.API_KEY, "other")),
        Asker(Actor(ActorType.USER, "k")),
        Asker(KEY, TokenGroups(uuid4(), frozenset({"group"}))),
    ],
)
def test_nobody_else_has_it(asker: Asker) -> None:
    wanted = kept()
    assert wanted.take(asker, Project.id, ID) is None
    assert wanted.take(Asker(KEY), Project.id, ID) is FOUND


@pytest.mark.parametrize("question", [(Project.id, uuid4()), (Document.id, ID), (Organization.id, ID), (Project.organization_id, ID)])
def test_it_answers_no_other_question(question: tuple[object, object]) -> None:
    wanted = kept()
    assert wanted.take(Asker(KEY), *question) is None  # type: ignore[arg-type] # columns are typed by what they hold
    assert wanted.take(Asker(KEY), Project.id, ID) is FOUND


def test_it_is_soon_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    present = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: present[0])
    for seconds, expected in ((MAX_AGE_SECONDS - 0.01, FOUND), (MAX_AGE_SECONDS, None)):
        wanted = kept()
        present[0] += seconds
        assert wanted.take(Asker(KEY), Project.id, ID) is expected
