"""What events tell of a change: the fields, before and after, and nothing of what applications keep."""

from datetime import UTC, datetime
from types import SimpleNamespace

from app.audit.changes import changes_of
from app.core.resources import ResourceType

AT = datetime(2026, 1, 1, tzinfo=UTC)
ROW = SimpleNamespace(name="old", expires_at=None, kind=ResourceType.PROJECT, metadata={"of": "nobody"}, response_payload={"of": "nobody"})


def test_each_field_is_told_before_and_after_as_json() -> None:
    told = changes_of(ROW, {"name": "new", "kind": ResourceType.DOCUMENT, "expires_at": AT})
    assert told == {
        "changed": ["expires_at", "kind", "name"],
        "before": {"expires_at": None, "kind": "PROJECT", "name": "old"},
        "after": {"expires_at": "2026-01-01T00:00:00+00:00", "kind": "DOCUMENT", "name": "new"},
    }
    assert [type(value) for value in told["after"].values()] == [str] * 3


def test_of_what_applications_keep_only_that_it_changed_is_told() -> None:
    assert changes_of(ROW, {"metadata": {"a": 1}, "response_payload": {}}) == {"changed": ["metadata", "response_payload"]}
    assert "nobody" not in str(changes_of(ROW, {"metadata": {"a": 1}, "name": "new"}))
