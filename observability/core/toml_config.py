"""Reads the TOML files that people write into frozen models; errors name every mistake."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from observability.core.errors import BadConfiguration

Model = TypeVar("Model", bound=BaseModel)

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")


def read(path: Path, model: type[Model], what: str, remedy: str) -> Model:
    """Read and check the file at `path`; messages call it `what`.

    Raises BadConfiguration with file, key, what was allowed and what came; `remedy` follows where
    the file cannot be read at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{path}: {what} cannot be read: {error}. {remedy}") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfiguration(f"{path}: not TOML: {error}") from error
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        raise BadConfiguration("\n".join(_mistakes(path, model, error))) from error


def tables(file: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every table of a file by its dotted name; a table comes before the tables inside it."""
    for name, field in file.model_fields.items():
        model = field.annotation
        if _is_table(model):
            yield name, model
            yield from ((f"{name}.{inner}", each) for inner, each in tables(model))


def knobs(table: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a table that are not tables themselves."""
    fields = table.model_fields.items()
    return {name: field for name, field in fields if not _is_table(field.annotation)}


def _is_table(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _mistakes(path: Path, model: type[BaseModel], error: ValidationError) -> list[str]:
    return [
        f"{path}: {_key(each['loc'])}: {_allowed(model, each)}"
        + ("" if each["type"] == "missing" else f"; came: {_shown(each['input'])}")
        for each in error.errors(include_url=False)
    ]


def _key(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place) or "the file"


def _allowed(model: type[BaseModel], mistake: Any) -> str:
    place = mistake["loc"]
    if mistake["type"] == "missing":
        return "this key is needed and is not there"
    if mistake["type"] == "extra_forbidden":
        return f"there is no such key; allowed here: {', '.join(_siblings(model, place))}"
    return str(mistake["msg"]).removeprefix("Value error, ")


def _shown(came: object) -> str:
    """The value as it may be printed: a URL without its password."""
    return _PASSWORD.sub(r"\1:***@", repr(came))


def _siblings(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not _is_table(annotation):
            break
        model = annotation
    return sorted(model.model_fields)
