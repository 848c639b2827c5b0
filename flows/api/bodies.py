"""The bodies of requests: their shapes, and what is said where one has another shape."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from flows.api.errors import RequestError, TooLarge, Unprocessable

LONGEST_ID = 200
Id = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ID)]
Row = dict[str, Any]
MOST_MISTAKES = 100
"""Mistakes of one body that are looked at. Of each, pydantic makes a dictionary: a million of them
would stop the service for half a minute. Lists end with their first mistake for the same reason."""
Body = TypeVar("Body")

_SHOWN = 60


class PredictBody(BaseModel):
    """One record or several, by the columns of the stream."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"record": {"load": 0.4, "site": "a"}, "id": "order-1"}]},
    )
    record: Row | None = Field(default=None, description="One record, as an object of its columns.")
    records: list[Row] | None = Field(default=None, fail_fast=True, description="Several records.")
    id: Id | None = Field(default=None, description="Of the one record; left out: it is made.")
    ids: list[Id] | None = Field(
        default=None, fail_fast=True, description="One for each of the records."
    )


class LabelEntry(BaseModel):
    """The label of one prediction."""

    model_config = ConfigDict(extra="forbid")
    id: Id
    label: Any = Field(description="A class or a value, as in the stream.")


class LabelBody(BaseModel):
    """Labels of predictions."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"labels": [{"id": "order-1", "label": 1}]}]},
    )
    labels: list[LabelEntry] = Field(fail_fast=True)


class Asked(NamedTuple):
    """Records to be predicted, an id for each, and the version that shall answer, if any."""

    records: Sequence[Row]
    ids: Sequence[str]
    version: str | None = None
    is_named: bool = False
    """Whether the client chose the ids: then it may ask again."""


PREDICT: TypeAdapter[PredictBody] = TypeAdapter(PredictBody)
LABEL: TypeAdapter[LabelBody] = TypeAdapter(LabelBody)


def read(body: bytes, adapter: TypeAdapter[Body]) -> Body:
    """The body as its model. Raises RequestError where it is no JSON, and Unprocessable."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        if error.error_count() > MOST_MISTAKES:
            raise Unprocessable(
                f"the body has another shape, in {error.error_count()} places; the routes and "
                "their bodies are in /openapi.json"
            ) from error
        mistakes = error.errors(include_url=False, include_context=False)
        if mistakes[0]["type"] == "json_invalid":
            why = mistakes[0]["msg"].partition(": ")[2]
            raise RequestError(
                f"the body must be one JSON document; it is broken: {why}"
            ) from error
        raise Unprocessable(
            f"the body has another shape: {_mistake(mistakes[0])}",
            {"faults": [_mistake(each) for each in mistakes[:20]]},
        ) from error


def asked(body: PredictBody, most: int) -> Asked:
    """The records of a body with their ids. Raises Unprocessable, TooLarge."""
    if (body.record is None) == (body.records is None):
        raise Unprocessable("either `record` (an object) or `records` (a list) was expected")
    if body.record is not None:
        if body.ids is not None:
            raise Unprocessable("`id` was expected beside `record`, `ids` came")
        return Asked([body.record], [body.id or made_id()], is_named=body.id is not None)
    assert body.records is not None
    if body.id is not None:
        raise Unprocessable("`ids` was expected beside `records`, `id` came")
    records = body.records
    check_count(len(records), most)
    ids = [made_id() for _ in records] if body.ids is None else body.ids
    check_ids(ids, len(records))
    return Asked(records, ids, is_named=body.ids is not None)


def check_count(count: int, most: int) -> None:
    """Check how many records came at once. Raises Unprocessable, TooLarge."""
    if count == 0:
        raise Unprocessable("at least one record was expected, none came")
    if count > most:
        raise TooLarge(
            f"at most {most} records at once were allowed, {count} came; send them in parts, or "
            "raise serve.most_records in the home's file"
        )


def check_ids(ids: Sequence[str], count: int) -> None:
    """Check that there is one id for each record, each once. Raises Unprocessable."""
    if len(ids) != count:
        raise Unprocessable(f"as many ids as records were expected ({count}), {len(ids)} came")
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise Unprocessable(f"each id once was expected, {twice!r} came twice")


def made_id() -> str:
    """An id that nobody else has."""
    return uuid.uuid4().hex


def _mistake(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error["loc"])) or "the body"
    if error["type"] == "missing":
        return f"{place}: this key is needed and is not there"
    if error["type"] == "extra_forbidden":
        return f"{place}: there is no such key"
    came = repr(error["input"])
    came = came if len(came) <= _SHOWN else f"{came[:_SHOWN]}..."
    return f"{place}: {error['msg']}; came: {came}"
