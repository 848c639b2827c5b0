"""Door to the files that people write: TOML into a frozen model, or every mistake in it by name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from observability.errors import BadConfiguration

Model = TypeVar("Model", bound=BaseModel)

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")


def read(path: Path, model: type[Model], what: str, remedy: str) -> Model:
    """Read and check the file at `path`, which is `what` to people.

    Raises BadConfiguration: file, key, what was allowed and what came; `remedy` follows where the
    file cannot be read at all.
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
    """What stood there, as it may be printed: a URL without its password."""
    return _PASSWORD.sub(r"\1:***@", repr(came))


def _siblings(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return sorted(model.model_fields)
