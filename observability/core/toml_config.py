"""Reads TOML files into frozen models; the error names every mistake in the file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from observability.core.errors import BadConfiguration

Model = TypeVar("Model", bound=BaseModel)

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")


def read(path: Path, model: type[Model], what: str, remedy: str) -> Model:
    """Read and check the file at `path`; messages call it `what`.

    Raises BadConfiguration with the file, the key, what is allowed and what came; with `remedy`
    where the file cannot be read at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{path}: {what} cannot be read: {error}. {remedy}") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfiguration(f"{path}: not TOML: {error}") from error
    return checked(tables, model, path)


def checked(tables: Mapping[str, Any], model: type[Model], path: Path) -> Model:
    """Check what a file holds, or would hold. Raises BadConfiguration as `read` does."""
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        raise BadConfiguration(
            "\n".join(
                f"{path}: {_mistake(model, each)}" for each in error.errors(include_url=False)
            )
        ) from error


def tables(file: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every table of a file with its dotted name; a table comes before the tables in it."""
    for name, field in file.model_fields.items():
        model = field.annotation
        if _is_table(model):
            yield name, model
            yield from ((f"{name}.{inner}", each) for inner, each in tables(model))


def knobs(table: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the keys of a table that are not tables themselves."""
    fields = table.model_fields.items()
    return {name: field for name, field in fields if not _is_table(field.annotation)}


def _is_table(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _mistake(model: type[BaseModel], error: Any) -> str:
    """Return one line about one mistake: the key, what is allowed, and what came."""
    place: tuple[int | str, ...] = error["loc"]
    key = ".".join(map(str, place)) or "the file"
    if error["type"] == "missing":
        return f"{key}: this key is needed and is not there"
    allowed = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        for part in place[:-1]:
            annotation = model.model_fields[str(part)].annotation
            if not _is_table(annotation):
                break
            model = annotation
        allowed = f"there is no such key; allowed here: {', '.join(sorted(model.model_fields))}"
    came = _PASSWORD.sub(r"\1:***@", repr(error["input"]))  # a URL without its password
    return f"{key}: {allowed}; came: {came}"
