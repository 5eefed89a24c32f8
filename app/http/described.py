"""What the fields of a schema mean, for the OpenAPI document: the docstrings below them.

Pydantic can read these when a class is made (``use_attribute_docstrings``), which takes an eighth of the time of every start; here they are
read when somebody asks for the document.
"""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Described(BaseModel):
    """Its fields are described by the docstrings below them, unless they say something else themselves."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Pydantic's, with the texts."""
        schema = handler(core_schema)
        properties: dict[str, Any] = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_texts(cls).items():
            properties.get(cls.model_fields[name].alias or name, {}).setdefault("description", text)
        return schema


def describe_parameters(query: Any) -> None:
    """Give the fields of a model their texts: FastAPI asks them, and not the schema, when the model stands for parameters."""
    for name, text in field_texts(query).items():
        query.model_fields[name].description = query.model_fields[name].description or text


@cache
def field_texts(model: type[BaseModel]) -> Mapping[str, str]:
    """The docstrings below the fields of a model and of those it comes from; none where there is no source."""
    texts: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            declared = vars(each).get("__annotations__", {})
            inherited = {name: text for name, text in texts.items() if name not in declared}
            texts = inherited | _texts_in(each.__module__).get(each.__qualname__, {})
    return {name: text for name, text in texts.items() if name in model.model_fields}


@cache
def _texts_in(module: str) -> dict[str, dict[str, str]]:
    """Of each class of a module."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # only what was compiled was installed, or it was never in a file
        return {}
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {node.name: dict(_texts_below(node.body)) for node in classes}


def _texts_below(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, text in pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(written))):
                yield name, inspect.cleandoc(written)
