"""The Open Inference Protocol, version 2: tensors by column instead of objects by record.

Each column of the stream is an input tensor of the shape [n] (or [n, 1]); the outputs are
`prediction`, for classes also `probabilities` of the shape [n, classes] and their `classes`, and
`id`. Source: https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from flows.api.bodies import Asked, Row, check_count, made_id
from flows.api.errors import Unprocessable
from flows.api.service import Answers
from models.core.record_schema import LabelKind, Schema
from models.serving.bundle import Bundle

DATATYPES: Mapping[LabelKind, str] = {"int": "INT64", "str": "BYTES", "float": "FP64"}
PLATFORM = "thermodrift"
SHARES = "probabilities"
_TYPES = (
    *("BOOL", "BYTES", "FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64"),
    *("UINT8", "UINT16", "UINT32", "UINT64"),
)


class Tensor(BaseModel):
    """One input: a column."""

    model_config = ConfigDict(extra="ignore")
    name: str
    shape: list[int] = Field(fail_fast=True)
    datatype: str
    data: list[Any]


class WantedOutput(BaseModel):
    """The name of an output that shall be answered."""

    model_config = ConfigDict(extra="ignore")
    name: str


class InferBody(BaseModel):
    """A request of the protocol."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "id": "order-1",
                    "inputs": [
                        {"name": "load", "shape": [1], "datatype": "FP64", "data": [0.4]},
                        {"name": "site", "shape": [1], "datatype": "BYTES", "data": ["a"]},
                    ],
                }
            ]
        },
    )
    id: str | None = None
    inputs: list[Tensor] = Field(min_length=1, fail_fast=True)
    outputs: list[WantedOutput] | None = Field(default=None, fail_fast=True)


INFER: TypeAdapter[InferBody] = TypeAdapter(InferBody)


def metadata(bundle: Bundle) -> dict[str, Any]:
    """What the model takes and answers."""
    schema = bundle.schema
    return {
        "name": bundle.pipeline,
        "versions": list(bundle.names),
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in _inputs(schema).items()
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, -1] if name == SHARES else [-1]}
            for name, datatype in _output_types(schema).items()
        ],
    }


def asked(body: InferBody, schema: Schema, most: int, version: str | None) -> Asked:
    """The records of the tensors. Their ids are made: clients may repeat the id of a request.

    Raises Unprocessable, also for an output that there is not, and TooLarge.
    """
    there = _output_types(schema)
    for each in body.outputs or ():
        if each.name not in there:
            raise Unprocessable(
                f"output {each.name!r} was wanted; there are {', '.join(there)}",
            )
    count = _count(body.inputs[0])
    check_count(count, most)
    names = [tensor.name for tensor in body.inputs]
    if len(set(names)) < len(names):
        raise Unprocessable(f"each input once was expected, {', '.join(names)} came")
    values = {tensor.name: _values(tensor, count) for tensor in body.inputs}
    records: list[Row] = [
        dict(zip(names, cells, strict=True)) for cells in zip(*values.values(), strict=True)
    ]
    return Asked(records, [made_id() for _ in records], version)


def answer(body: InferBody, answers: Answers, version: str | None) -> dict[str, Any]:
    """The answer's document."""
    outputs = {each["name"]: each for each in _outputs(answers)}
    wanted = list(outputs) if body.outputs is None else [each.name for each in body.outputs]
    bundle = answers.bundle
    return {
        "model_name": bundle.pipeline,
        "model_version": version or bundle.names[0],
        **({} if body.id is None else {"id": body.id}),
        "parameters": answers.versions,
        "outputs": [outputs[name] for name in wanted],
    }


def _inputs(schema: Schema) -> dict[str, str]:
    """The datatype of each column of the stream that features are made from."""
    found: dict[str, str] = {}
    for column in schema.columns:
        is_text = column.kind == "category" or column.time == "iso"
        found.setdefault(column.source, "BYTES" if is_text else "FP64")
    return found


def _output_types(schema: Schema) -> dict[str, str]:
    """The datatype of each output."""
    found = {"prediction": DATATYPES[schema.label_kind], "id": "BYTES"}
    if schema.task == "classification":
        found |= {SHARES: "FP64", "classes": "BYTES"}
    return found


def _count(tensor: Tensor) -> int:
    """How many records a tensor has."""
    shape = tensor.shape
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1) or shape[0] < 0:
        raise Unprocessable(
            f"input {tensor.name!r}: a shape of [n] or [n, 1] was expected, {shape} came"
        )
    return shape[0]


def _values(tensor: Tensor, count: int) -> Sequence[Any]:
    """The cells of a tensor; a list for each record is opened."""
    if tensor.datatype not in _TYPES:
        raise Unprocessable(
            f"input {tensor.name!r}: a datatype of {', '.join(_TYPES)} was expected, "
            f"{tensor.datatype!r} came"
        )
    data = tensor.data
    if len(tensor.shape) == 2 and all(isinstance(cell, list) and len(cell) == 1 for cell in data):
        data = [cell[0] for cell in data]
    if _count(tensor) != count or len(data) != count:
        raise Unprocessable(
            f"input {tensor.name!r}: {count} values were expected, as in the first input; "
            f"{len(data)} came, in the shape {tensor.shape}"
        )
    return data


def _outputs(answers: Answers) -> list[dict[str, Any]]:
    schema, count = answers.bundle.schema, len(answers.predicted)
    values = [each.value for each in answers.predicted]
    found = [
        _tensor("prediction", DATATYPES[schema.label_kind], [count], values),
        _tensor("id", "BYTES", [count], list(answers.ids)),
    ]
    if schema.task == "classification":
        classes = list(next((each.probabilities for each in answers.predicted), None) or ())
        shares = [
            (each.probabilities or {}).get(name) for each in answers.predicted for name in classes
        ]
        found += [
            _tensor(SHARES, "FP64", [count, len(classes)], shares),
            _tensor("classes", "BYTES", [len(classes)], classes),
        ]
    return found


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
