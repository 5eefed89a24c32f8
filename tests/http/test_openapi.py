"""The OpenAPI document: valid, whole, and with examples that the service really takes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.http.examples import Examples, NoExampleError
from app.http.problems import MEDIA_TYPE
from app.http.routes import ACTIONS, OPEN_BECAUSE
from tests.conftest import Caller, Service
from tests.support.application import Operation, make_app, operations

FORM = "multipart/form-data"
UPLOADS = {"create_document": ["file"], "create_document_version": ["file", "version_name"]}
FIELDS = {"file", "name", "version_name", "media_type", "metadata"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_app(tmp_path_factory.mktemp("app")).openapi()


@pytest.fixture(scope="module")
def all_operations(tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    return list(operations(make_app(tmp_path_factory.mktemp("app"))))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)


def faults(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value by a schema of the document, formats included."""
    whole = {**schema, "components": document["components"]}
    checker = Draft202012Validator.FORMAT_CHECKER
    return [error.message for error in Draft202012Validator(whole, format_checker=checker).iter_errors(value)]


def examples(operation: Operation) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Where an example stands, its schema and itself."""
    for name, media in operation.body.get("requestBody", {}).get("content", {}).items():
        if name == "application/json":
            yield "body", media["schema"], media["example"]
            continue
        for field, schema in media["schema"].get("properties", {}).items():
            if schema.get("format") != "binary":
                yield from ((f"form {field}", schema, example) for example in schema["examples"])
    for status, answer in operation.body["responses"].items():
        for media in answer.get("content", {}).values():
            if "example" in media:
                yield status, media["schema"], media["example"]
    for parameter in operation.body.get("parameters", ()):
        for example in parameter["schema"].get("examples", ()):
            yield parameter["name"], parameter["schema"], example


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    del document["paths"]["/livez"]["get"]["responses"]["200"]["description"]
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] != []
    document["paths"]["/livez"]["get"]["responses"]["200"]["description"] = "Successful Response"


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: dict[str, Any]) -> None:
    used = {str(node["$ref"]) for node in nodes(document) if "$ref" in node}
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert len(used) > 20
    assert used - known == set()
    assert known - used == set()
    assert "HTTPValidationError" not in json.dumps(document)


def test_every_operation_explains_itself(all_operations: list[Operation]) -> None:
    assert len(all_operations) >= 34
    for operation in all_operations:
        assert len(operation.body["summary"]) > 8, operation.id
        assert len(operation.body["description"]) > 20, operation.id
        assert len(operation.body["tags"]) == 1, operation.id


def test_every_operation_of_the_api_names_its_action_and_how_to_show_who_calls(
    all_operations: list[Operation], document: dict[str, Any]
) -> None:
    assert document["components"]["securitySchemes"]["actor"]["name"] == "X-SaaSBase-Actor"
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for operation in all_operations:
        body = operation.body
        if not operation.is_of_the_api:
            assert "security" not in body
            continue
        assert body["security"] == [{"actor": []}, {"bearer": []}], operation.id
        told = body.get(ACTIONS) or [body[OPEN_BECAUSE]]
        assert told
        for word in told:
            assert word in body["description"], f"{operation.id} does not say {word}"


def test_every_operation_has_an_example_for_what_it_takes_and_answers(all_operations: list[Operation]) -> None:
    for operation in all_operations:
        found = {place for place, _, _ in examples(operation)}
        needed = {parameter["name"] for parameter in operation.body.get("parameters", ()) if parameter["required"]}
        for name, media in operation.body.get("requestBody", {}).get("content", {}).items():
            needed |= (
                {"body"}
                if name == "application/json"
                else {f"form {field}" for field in media["schema"].get("required", ()) if field != "file"}
            )
        answers = operation.body["responses"].items()
        needed |= {
            status for status, answer in answers if {"application/json", MEDIA_TYPE} & set(answer.get("content", {})) and status != "503"
        }
        assert needed <= found, f"{operation.id} lacks {sorted(needed - found)}"
        assert found, operation.id


def test_every_example_is_valid_by_its_schema(all_operations: list[Operation], document: dict[str, Any]) -> None:
    seen = 0
    for operation in all_operations:
        for place, schema, example in examples(operation):
            seen += 1
            assert faults(document, schema, example) == [], f"{operation.id} {place}: {example}"
    assert seen > 250
    assert faults(document, {"$ref": "#/components/schemas/ProjectCreate"}, {"name": "x", "organization_id": "no uuid"}) != []


def test_a_field_without_an_example_is_told_by_its_name() -> None:
    body = {"content": {"application/json": {"schema": {"properties": {"colour": {"type": "string"}}}}}}
    with pytest.raises(NoExampleError, match="'colour' in projects"):
        Examples({"schemas": {}}).add_to({"tags": ["projects"], "requestBody": body, "responses": {}})


def test_problem_examples_tell_their_own_status_and_code(all_operations: list[Operation]) -> None:
    codes = set()
    for operation in all_operations:
        for status, answer in operation.body["responses"].items():
            problem = answer.get("content", {}).get(MEDIA_TYPE, {}).get("example")
            if problem is not None:
                assert problem["status"] == int(status)
                codes.add((problem["status"], problem["code"]))
    assert len({status for status, _ in codes}) == len(codes) >= 11
    assert "error" not in {code for _, code in codes}


def test_the_uploads_are_forms_with_a_file(all_operations: list[Operation]) -> None:
    forms = {item.id: item.body["requestBody"] for item in all_operations if FORM in item.body.get("requestBody", {}).get("content", {})}
    assert set(forms) == set(UPLOADS)
    for name, body in forms.items():
        assert body["required"] is True
        assert list(body["content"]) == [FORM]
        schema = body["content"][FORM]["schema"]
        assert sorted(schema["required"]) == sorted(UPLOADS[name])
        assert set(schema["properties"]) == FIELDS
        assert (schema["properties"]["file"]["type"], schema["properties"]["file"]["format"]) == ("string", "binary")
        assert schema["additionalProperties"] is False
        assert [field for field, described in schema["properties"].items() if described.get("minLength") == 1] == UPLOADS[name]
        for field, described in schema["properties"].items():
            assert described["type"] == "string", field
            assert len(described["description"]) > 10, field


def test_downloads_answer_bytes(all_operations: list[Operation]) -> None:
    found = {operation.id: operation.body["responses"] for operation in all_operations if operation.id.startswith("download_")}
    assert len(found) == 2
    for answers in found.values():
        for status in ("200", "206"):
            assert answers[status]["content"] == {"*/*": {"schema": {"type": "string", "format": "binary"}}}
        assert "content" not in answers["304"]


def test_optional_parameters_are_absent_not_null(all_operations: list[Operation]) -> None:
    parameters = [item for operation in all_operations for item in operation.body.get("parameters", ())]
    assert len(parameters) > 60
    assert [item["name"] for item in parameters if {"type": "null"} in item["schema"].get("anyOf", ())] == []


def test_filters_may_be_blank_and_names_may_not(all_operations: list[Operation], document: dict[str, Any]) -> None:
    by_id = {operation.id: operation for operation in all_operations}
    schemas = {item["name"]: item["schema"] for item in by_id["list_audit_events"].body["parameters"]}
    for name in ("text", "actor_id", "on_behalf_of", "correlation_id"):
        assert schemas[name]["type"] == "string", name
        assert "minLength" not in schemas[name], name
    assert document["components"]["schemas"]["ProjectCreate"]["properties"]["name"]["minLength"] == 1


def test_no_answer_is_held_to_the_limits_of_what_is_taken(all_operations: list[Operation], document: dict[str, Any]) -> None:
    """A limit there would make what is stored, or a sum of it, unreadable for ever."""
    schemas = document["components"]["schemas"]
    waiting: list[Any] = [operation.body["responses"] for operation in all_operations]
    answered: set[str] = set()
    while waiting:
        found = {str(node["$ref"]).rsplit("/", 1)[1] for node in nodes(waiting.pop()) if "$ref" in node} - answered
        answered |= found
        waiting += [schemas[name] for name in found]
    assert len(answered) > 40
    limits = {"maximum", "minimum", "maxLength", "minLength", "maxItems", "minItems", "pattern"}
    assert [(name, node) for name in sorted(answered) for node in nodes(schemas[name]) if limits & node.keys()] == []


def test_another_header_and_base_path_stand_in_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_ACTOR__HEADER", "X-Actor")
    monkeypatch.setenv("SAASBASE_WEB__BASE_PATH", "/v9")
    document = make_app(tmp_path).openapi()
    assert document["components"]["securitySchemes"]["actor"]["name"] == "X-Actor"
    assert {path.split("/")[1] for path in document["paths"]} == {"v9", "livez", "readyz", "version", ".well-known"}


def test_without_the_api_only_the_operations_routes_are_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_WEB__ENABLED", "false")
    assert set(make_app(tmp_path).openapi()["paths"]) == {"/livez", "/readyz", "/version"}


@pytest.mark.anyio
async def test_the_examples_are_taken_by_the_service(service: Service, alice: Caller) -> None:
    served = (await service.client.get("/openapi.json")).json()["paths"]

    def example(method: str, path: str, **changes: str) -> dict[str, Any]:
        given: dict[str, Any] = served["/api" + path][method]["requestBody"]["content"]["application/json"]["example"]
        return {**given, **changes}

    organization = (await alice.post("/organizations", example("post", "/organizations"))).json()["id"]
    project = (await alice.post("/projects", example("post", "/projects", organization_id=organization))).json()["id"]
    document = (await alice.new_document(project))["id"]
    await alice.post("/memberships", example("post", "/memberships", resource_id=project))
    for path, identifier in (("organization", organization), ("project", project), ("document", document)):
        await alice.patch(f"/{path}s/{identifier}", example("patch", f"/{path}s/{{{path}_id}}"))
    form = served["/api/documents/{document_id}/versions"]["post"]["requestBody"]["content"][FORM]["schema"]["properties"]
    fields = {name: field["examples"][0] for name, field in form.items() if name != "file"}
    await alice.upload(f"/documents/{document}/versions", uuid4().bytes, **fields)
