"""Log lines: what a machine reads, and what a person does."""

import json
import logging
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from app.observability.logging import ConsoleFormatter, JsonFormatter


def record(message: str, *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("app.access", logging.INFO, __file__, 1, message, args, None)
    vars(made).update(extra)
    made.created, made.msecs = 1763662316.0625, 62.5
    return made


def test_a_machine_reads_one_object_with_everything() -> None:
    line = JsonFormatter().format(record("%s %s", "GET", 200, status=200, actor="user:zoë\n", route=None))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2025-11-20T18:11:56.062Z",
        "level": "INFO",
        "logger": "app.access",
        "message": "GET 200",
        "status": 200,
        "actor": "user:zoë\n",
        "route": None,
    }


def test_half_a_character_is_told_by_its_number() -> None:
    line = JsonFormatter().format(record("%s", "\ud800", actor=ValueError("\udfff")))
    assert line.isascii()
    assert (json.loads(line)["message"], json.loads(line)["actor"]) == ("\ud800", "\udfff")


def test_what_is_inside_of_things_is_not_for_the_log() -> None:
    @dataclass
    class Key:
        name: str
        secret: str = field(repr=False)

        def __str__(self) -> str:
            return self.name

    line = json.loads(JsonFormatter().format(record("m", key=Key("k", "s3cret"), at=datetime(2026, 1, 5, tzinfo=UTC), kept={"a": [1]})))
    assert (line["key"], line["at"], line["kept"]) == ("k", "2026-01-05 00:00:00+00:00", {"a": [1]})


def test_a_person_reads_what_the_message_does_not_say_yet() -> None:
    line = ConsoleFormatter().format(
        record("%s %s %s", "GET", "-", 404, method="GET", status=404, route=None, actor="user:alice", took=2.5)
    )
    assert line[8:] == " INFO    GET - 404  actor=user:alice took=2.5"
    assert ConsoleFormatter().format(record("plain"))[8:] == " INFO    plain"


@pytest.mark.parametrize("formatter", [JsonFormatter(), ConsoleFormatter()], ids=["json", "console"])
def test_a_fault_is_told_with_where_it_came_from(formatter: logging.Formatter) -> None:
    try:
        int("broken")
    except ValueError:
        failed = record("it failed")
        failed.exc_info = sys.exc_info()
    line = formatter.format(failed)
    assert "it failed" in line
    assert "ValueError: invalid literal" in line
    assert "test_logging.py" in line
