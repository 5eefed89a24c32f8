"""A handler's docstring is what /docs says about it."""

from inspect import getdoc, unwrap
from pathlib import Path

from fastapi.routing import APIRoute

from tests.support.application import api_routes, make_app, operations


def sentence_of(route: APIRoute) -> str:
    return (getdoc(unwrap(route.endpoint)) or "").partition("\n")[0]


def test_every_handler_says_what_it_does_in_one_sentence(tmp_path: Path) -> None:
    found = {route.name: sentence_of(route) for route in api_routes(make_app(tmp_path))}
    assert len(found) >= 31
    assert {name: text for name, text in found.items() if not text.endswith(".") or len(text.split()) < 3} == {}


def test_the_sentence_is_the_summary_in_the_documentation(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    summaries = {operation.id: operation.body["summary"] for operation in operations(app)}
    for route in api_routes(app):
        assert summaries[route.name] == sentence_of(route).removesuffix("."), route.name


def test_no_two_operations_have_the_same_summary(tmp_path: Path) -> None:
    summaries = [operation.body["summary"] for operation in operations(make_app(tmp_path))]
    assert len(set(summaries)) == len(summaries)
