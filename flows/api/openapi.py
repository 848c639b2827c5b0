"""The OpenAPI document of the service, with examples; it is made without FastAPI's models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from pydantic import BaseModel

from flows.api.bodies import LabelBody, PredictBody
from flows.api.inference_protocol import InferBody

_BODIES: Mapping[str, type[BaseModel]] = {
    "/predict": PredictBody,
    "/label": LabelBody,
    "/infer": InferBody,
}
_VERSIONS = {"champion": "v000004000", "position": 4200, "lineage": "0f3a9c1e"}
_PREDICTION = {
    "pipeline": "elec2",
    "versions": _VERSIONS,
    "id": "order-1",
    "prediction": "UP",
    "probabilities": {"DOWN": 0.2, "UP": 0.8},
}
_INFERRED = {
    "model_name": "elec2",
    "model_version": "v000004000",
    "id": "order-1",
    "parameters": _VERSIONS,
    "outputs": [{"name": "prediction", "datatype": "BYTES", "shape": [1], "data": ["UP"]}],
}
_READINESS = {
    "ready": True,
    "pipelines": {
        "elec2": {
            "ready": True,
            "versions": _VERSIONS,
            "age_s": 1.5,
            "trouble": None,
            "shadows": [],
        },
    },
}
_METADATA = {
    "name": "elec2",
    "versions": ["v000004000", "4200"],
    "platform": "thermodrift",
    "inputs": [{"name": "load", "datatype": "FP64", "shape": [-1]}],
    "outputs": [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}],
}
PATHS: Mapping[str, tuple[str, str, Any]] = {
    "/predict/{pipeline}": ("post", "Predict one record or several", _PREDICTION),
    "/predict": ("post", "The same, where one pipeline is served", _PREDICTION),
    "/label/{pipeline}": (
        "post",
        "Give the labels of predictions",
        {
            "outcomes": [{"id": "order-1", "outcome": "joined", "position": 17}],
            "counts": {"joined": 1},
        },
    ),
    "/label": (
        "post",
        "The same, where one pipeline is served",
        {
            "outcomes": [{"id": "order-1", "outcome": "unknown", "position": None}],
            "counts": {"unknown": 1},
        },
    ),
    "/model/{pipeline}": ("get", "What serves, and what it takes", {"versions": _VERSIONS}),
    "/model": ("get", "The same, of all pipelines", {"versions": _VERSIONS}),
    "/healthz": ("get", "Whether the process answers", {"live": True}),
    "/readyz": ("get", "Whether each pipeline is served", _READINESS),
    "/metrics": ("get", "Figures for Prometheus, as text", None),
    "/openapi.json": ("get", "This document", None),
    "/v2": ("get", "The server", {"name": "thermodrift", "version": "0.1.0", "extensions": []}),
    "/v2/health/live": ("get", "Whether the process answers", {"live": True}),
    "/v2/health/ready": ("get", "Whether all pipelines are served", {"ready": True}),
    "/v2/models/{pipeline}": ("get", "The tensors of a pipeline", _METADATA),
    "/v2/models/{pipeline}/ready": ("get", "Whether it is served", {"ready": True}),
    "/v2/models/{pipeline}/infer": ("post", "Predict tensors", _INFERRED),
    "/v2/models/{pipeline}/versions/{version}": ("get", "The tensors of a version", _METADATA),
    "/v2/models/{pipeline}/versions/{version}/ready": (
        "get",
        "Whether this version serves now",
        {"ready": True},
    ),
    "/v2/models/{pipeline}/versions/{version}/infer": (
        "post",
        "Predict tensors by this version, or 404",
        _INFERRED,
    ),
}
"""By path: the method, what it is for, and an answer."""
_CODES = {
    "401": "the token is missing or another one",
    "404": "there is no such pipeline, version or route",
    "409": "an id was used for another prediction",
    "413": "the body or its number of records is too large",
    "422": "the body has another shape, or a record does not fit the stream",
    "429": "too much waits, or this client asks too often; ask again after Retry-After seconds",
    "503": "there is no bundle yet, or the inbox cannot take it",
}
_ERROR = {
    "application/json": {
        "schema": {"$ref": "#/components/schemas/Error"},
        "example": {
            "error": "record 0, field 'load': a number was expected, the text 'x' came; nothing "
            "of this request was predicted",
            "faults": [
                {
                    "record": 0,
                    "field": "load",
                    "reason": "a number was expected, the text 'x' came",
                }
            ],
        },
    }
}


def document(pipelines: Sequence[str]) -> bytes:
    """The document as JSON; `pipelines` are the names that a path may have."""
    schemas: dict[str, Any] = {"Error": _error_schema()}
    for body in _BODIES.values():
        own = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= own.pop("$defs", {})
        schemas[body.__name__] = own
    paths = {path: {told[0]: _operation(path, *told, pipelines)} for path, told in PATHS.items()}
    about = {"title": "thermodrift", "version": metadata.version("thermodrift")}
    security = {"token": {"type": "http", "scheme": "bearer"}}
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": about,
            "paths": paths,
            "components": {"schemas": schemas, "securitySchemes": security},
        }
    ).encode()


def _operation(
    path: str, method: str, what: str, example: Any, pipelines: Sequence[str]
) -> dict[str, Any]:
    kind = "application/json" if path != "/metrics" else "text/plain"
    content = {kind: {"example": example} if example is not None else {}}
    found: dict[str, Any] = {
        "summary": what,
        "responses": {
            "200": {"description": "the answer", "content": content},
            **{code: {"description": why, "content": _ERROR} for code, why in _CODES.items()},
        },
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": schema}
            for name, schema in (
                ("pipeline", {"type": "string", "enum": list(pipelines)}),
                ("version", {"type": "string"}),
            )
            if f"{{{name}}}" in path
        ],
    }
    body = next((model for part, model in _BODIES.items() if part in path), None)
    if method == "post" and body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        (given,) = body.model_json_schema()["examples"]
        shown = {"application/json": {"schema": schema, "example": given}}
        found["requestBody"] = {"required": True, "content": shown}
        found["security"] = [{}, {"token": []}]
    return found


def _error_schema() -> dict[str, Any]:
    faults = {"type": "array", "items": {}, "description": "each mistake, with its place"}
    return {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {"type": "string", "description": "what failed, why, and what to do"},
            "faults": faults,
        },
    }
