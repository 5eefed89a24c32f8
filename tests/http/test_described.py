"""The docstrings below fields stand in the OpenAPI document: the same that Pydantic would read, for which nobody waits at the start."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic._internal._docs_extraction import extract_docstrings_from_cls

from app import api  # noqa: F401 - every schema of the service
from app.http.described import Described, field_texts
from app.settings.sections import Section


def below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        if each.__module__.startswith("app.") and "[" not in each.__qualname__:
            yield each
        yield from below(each)


@pytest.mark.parametrize("model", [*below(Described), *below(Section)], ids=lambda model: model.__qualname__)
def test_they_are_what_pydantic_would_read(model: type[BaseModel]) -> None:
    own = extract_docstrings_from_cls(model, use_inspect=True)
    declared = vars(model).get("__annotations__", {})
    assert {name: text for name, text in field_texts(model).items() if name in declared} == own


class Parent(Described):
    told: int = 0
    """In the parent."""
    told_anew: int = 0
    """Of the parent alone."""
    silent: int = 0
    named: Annotated[int, Field(description="By itself.")] = 0
    """Not this."""
    renamed: int = Field(0, alias="other")
    """Under its other name."""


class Child(Parent):
    model_config = ConfigDict(extra="forbid")
    told_anew: int = 1
    silent: int = 1
    """Told now."""


def test_they_are_inherited_until_a_field_is_declared_anew() -> None:
    properties: dict[str, Any] = Child.model_json_schema()["properties"]
    assert {name: field.get("description") for name, field in properties.items()} == {
        "told": "In the parent.",
        "told_anew": None,
        "silent": "Told now.",
        "named": "By itself.",
        "other": "Under its other name.",
    }


def test_without_a_source_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = type("Made", (Described,), {"__module__": "made", "__annotations__": {"field": int}})
    monkeypatch.setitem(sys.modules, "made", type(sys)("made"))
    assert field_texts(made) == {}
