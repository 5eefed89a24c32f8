"""The budgets for sizes, and what every module opens with. The tail is what is won by: a few long functions hide the faults."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.application import ROOT, python_files

HANDLER_LINES = 15
FUNCTION_P95, FUNCTION_MAX = 30, 60
FILE_P95, FILE_MAX = 250, 400
# Programs of their own that are kept in one file so that they can be taken away.
OWN_PROGRAMS = {ROOT / "tests/conformance/contract_scenarios.py"}
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def body_lines(function: Function) -> int:
    """Without the signature and the docstring, which is documentation."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def is_handler(function: Function) -> bool:
    calls = [item.func for item in function.decorator_list if isinstance(item, ast.Call)]
    return any(isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id == "routes" for call in calls)


def p95(sizes: list[int]) -> int:
    return sorted(sizes)[int(len(sizes) * 0.95)]


def test_handlers_are_short() -> None:
    found = {
        f"{path.parent.name}.{function.name}": body_lines(function)
        for path in (ROOT / "app/resources").rglob("router.py")
        for function in functions(path)
        if is_handler(function)
    }
    assert len(found) >= 31
    assert {name: size for name, size in found.items() if size > HANDLER_LINES} == {}


def test_functions_are_short() -> None:
    found = {f"{path.relative_to(ROOT)}:{function.name}": lines(function) for path in python_files("app") for function in functions(path)}
    assert len(found) > 300
    assert p95(list(found.values())) <= FUNCTION_P95
    assert {name: size for name, size in found.items() if size > FUNCTION_MAX} == {}


def test_files_are_short() -> None:
    found = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in python_files("app")}
    assert len(found) > 60
    assert p95(list(found.values())) <= FILE_P95
    assert {name: size for name, size in found.items() if size > FILE_MAX} == {}


def test_tests_keep_the_same_limits() -> None:
    files = [path for path in python_files("tests", "benchmarks") if path not in OWN_PROGRAMS]
    assert {str(path): size for path in files if (size := len(path.read_text().splitlines())) > FILE_MAX} == {}
    too_long = [f"{path}:{function.name}" for path in files for function in functions(path) if lines(function) > FUNCTION_MAX]
    assert too_long == []


def test_every_module_opens_with_a_sentence() -> None:
    openings = {path: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0] for path in python_files("app")}
    assert {str(path): text for path, text in openings.items() if not text.endswith(".") or len(text.split()) < 2} == {}


def test_nothing_is_left_to_be_done() -> None:
    texts = {path: path.read_text() for path in python_files("app", "tests", "alembic")}
    assert {str(path): word for path, text in texts.items() for word in UNFINISHED if word in text} == {}
