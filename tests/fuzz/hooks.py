"""What schemathesis is told about the service: the world its examples are about, what to leave alone, and what is no finding."""

import json
import os
import re
from typing import Any, Final
from uuid import uuid4

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import RejectedPositiveData

# From the ids in the document's examples to those of the world that was made for the run.
WORLD: Final[dict[str, str]] = json.loads(os.environ["FUZZ_WORLD"])
KEY: Final = os.environ["FUZZ_KEY"]
# The codes of our own rules, for which JSON Schema has no words: two fields that belong together, a role that cannot be held there,
# a cursor that was not made here. All else that is refused ("missing", "string_too_long", "enum" ...) the document must have said.
RULES: Final = frozenset({"value_error", "invalid_cursor", "decimal_max_digits", "decimal_max_places"})
# Rules that use a word of the schema: (pointer, code).
RULES_BY_NAME: Final = frozenset({("query.organization_id", "missing")})
# A part that is wrong fails by itself, inside an answer that is 200 for the others.
ANSWERED_BY_PART: Final = frozenset({"POST /api/projects/{project_id}/executions/batch"})

# What one answer leads to may replace the part that was to be wrong: the failure says then itself that nothing is.
NOTHING_BROKEN: Final = "Invalid component: positive test case"


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """Let the examples name what there is, and know no actor header: the server of this run believes nobody's."""
    text = json.dumps(raw_schema)
    for example, real in WORLD.items():
        text = text.replace(example, real)
    raw_schema.clear()
    raw_schema.update(json.loads(text))
    del raw_schema["components"]["securitySchemes"]["actor"]
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            if "security" in operation:
                operation["security"] = [{"bearer": []}]


@schemathesis.hook
def before_call(_context: Any, case: schemathesis.Case[Any], _kwargs: dict[str, Any]) -> None:
    """What would end the world, or the run's own key, hits something that is not there: all else would be 404 or 401."""
    if case.method == "GET":
        return
    place, query = case.path_parameters, case.query
    named_last = re.search(r"{(\w+)}$", case.path)
    if case.method == "DELETE" and named_last is not None and place.get(named_last[1]) in WORLD.values():
        place[named_last[1]] = str(uuid4())
    if place.get("api_key_id") == KEY:
        place["api_key_id"] = str(uuid4())
    if query.get("actor_id") == KEY:
        query["actor_id"] = str(uuid4())


@schemathesis.hook
def filter_failure(_context: Any, failure: Failure, case: schemathesis.Case[Any], response: Any) -> bool:
    """Whether this is a finding."""
    if isinstance(failure, AcceptedNegativeData) and (case.operation.label in ANSWERED_BY_PART or NOTHING_BROKEN in failure.message):
        return False
    if not isinstance(failure, RejectedPositiveData):
        return True
    problem = json.loads(response.content)
    faults = problem.get("errors", [])
    return not faults or any(fault["code"] not in RULES and (fault["pointer"], fault["code"]) not in RULES_BY_NAME for fault in faults)
