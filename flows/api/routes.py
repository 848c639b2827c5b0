"""The routes of the service, and what each answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from flows.api import bodies, inference_protocol, openapi
from flows.api.endpoint import JSON, Endpoint, Handler, JsonResponse
from flows.api.errors import NotFound
from flows.api.metrics import CONTENT_TYPE
from flows.api.safety import Access, Guard, read_body
from flows.api.service import Answers, ServedPipeline, Service, no_version
from models.serving.bundle import Bundle


async def predict(request: Request, service: Service) -> Response:
    """POST /predict, /predict/{pipeline}: predict one record or several."""
    served = _pipeline(request, service)
    body = bodies.read(await _body(request, service), bodies.PREDICT)
    asked = bodies.asked(body, service.config.most_records)
    return JsonResponse(_predictions(await served.predict(asked), single=body.record is not None))


async def label(request: Request, service: Service) -> Response:
    """POST /label, /label/{pipeline}: labels of predictions that were given."""
    served = _pipeline(request, service)
    body = bodies.read(await _body(request, service), bodies.LABEL)
    bodies.check_count(len(body.labels), service.config.most_records)
    results = await served.label(body.labels)
    return JsonResponse(
        {
            "outcomes": [
                {"id": each.id, "outcome": each.outcome, "position": each.position}
                for each in results
            ],
            "counts": dict(Counter(each.outcome for each in results)),
        }
    )


async def model(request: Request, service: Service) -> Response:
    """GET /model, /model/{pipeline}: what serves, and what it takes."""
    name = request.path_params.get("pipeline")
    chosen = service.pipelines.values() if name is None else [service.find(name)]
    if name is None and len(service.pipelines) > 1:
        return JsonResponse({"pipelines": [_model(each) for each in chosen]})
    return JsonResponse(_model(service.find(name)))


async def alive(request: Request, service: Service) -> Response:
    """GET /healthz: the process answers."""
    return JsonResponse({"live": True})


async def ready(request: Request, service: Service) -> Response:
    """GET /readyz: whether each pipeline has a bundle, and what is wrong with newer files."""
    return JsonResponse(service.readiness(), 200 if service.is_ready else 503)


async def figures(request: Request, service: Service) -> Response:
    """GET /metrics: for Prometheus."""
    return Response(await asyncio.to_thread(service.figures), media_type=CONTENT_TYPE)


async def document(request: Request, service: Service) -> Response:
    """GET /openapi.json: all of this for programs."""
    return Response(openapi.document(list(service.pipelines)), media_type=JSON)


async def server(request: Request, service: Service) -> Response:
    """GET /v2: the server's metadata."""
    version = metadata.version("thermodrift")
    return JsonResponse({"name": "thermodrift", "version": version, "extensions": []})


async def server_live(request: Request, service: Service) -> Response:
    """GET /v2/health/live."""
    return JsonResponse({"live": True})


async def server_ready(request: Request, service: Service) -> Response:
    """GET /v2/health/ready."""
    return JsonResponse({"ready": service.is_ready}, 200 if service.is_ready else 503)


async def model_metadata(request: Request, service: Service) -> Response:
    """GET /v2/models/{pipeline}: its tensors."""
    return JsonResponse(inference_protocol.metadata(_versioned(request, service)))


async def model_ready(request: Request, service: Service) -> Response:
    """GET /v2/models/{pipeline}/ready."""
    served = service.find(request.path_params["pipeline"])
    if served.follower.bundle is None:
        return JsonResponse({"name": served.name, "ready": False}, 503)
    _versioned(request, service)
    return JsonResponse({"name": served.name, "ready": True})


async def infer(request: Request, service: Service) -> Response:
    """POST /v2/models/{pipeline}/infer: predict tensors."""
    served = service.find(request.path_params["pipeline"])
    version = request.path_params.get("version")
    body = bodies.read(await _body(request, service), inference_protocol.INFER)
    schema = served.bundle().schema
    asked = inference_protocol.asked(body, schema, service.config.most_records, version)
    answers = await served.predict(asked)
    return JsonResponse(inference_protocol.answer(body, answers, version))


async def nothing(request: Request, service: Service) -> Response:
    """Whatever is no route."""
    raise NotFound(f"there is no route {request.url.path}; /openapi.json lists all routes")


ROUTES: Mapping[str, tuple[str, Handler, Access | None]] = {
    "/predict": ("POST", predict, "predict"),
    "/predict/{pipeline}": ("POST", predict, "predict"),
    "/label": ("POST", label, "label"),
    "/label/{pipeline}": ("POST", label, "label"),
    "/model": ("GET", model, "model"),
    "/model/{pipeline}": ("GET", model, "model"),
    "/healthz": ("GET", alive, None),
    "/readyz": ("GET", ready, None),
    "/metrics": ("GET", figures, "metrics"),
    "/openapi.json": ("GET", document, None),
    "/v2": ("GET", server, None),
    "/v2/health/live": ("GET", server_live, None),
    "/v2/health/ready": ("GET", server_ready, None),
    "/v2/models/{pipeline}": ("GET", model_metadata, "model"),
    "/v2/models/{pipeline}/ready": ("GET", model_ready, None),
    "/v2/models/{pipeline}/infer": ("POST", infer, "predict"),
    "/v2/models/{pipeline}/versions/{version}": ("GET", model_metadata, "model"),
    "/v2/models/{pipeline}/versions/{version}/ready": ("GET", model_ready, None),
    "/v2/models/{pipeline}/versions/{version}/infer": ("POST", infer, "predict"),
}
"""By path: the method, what answers, and what the token is needed for."""


UNLIMITED = {"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"}
"""What restarts the service, or watches it, must not be refused: it would look like a failure."""


def application(service: Service, guard: Guard, more: Sequence[BaseRoute] = ()) -> Router:
    """The ASGI application of a service, with `more` routes before the one for all others."""

    def endpoint(path: str, method: str, handler: Handler, access: Access | None) -> Endpoint:
        return Endpoint(path, {method: handler}, access, guard, service, path not in UNLIMITED)

    routes = [Route(path, endpoint(path, *answers)) for path, answers in ROUTES.items()]
    router = Router([*routes, *more], redirect_slashes=False)
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    router.default = Endpoint("other", dict.fromkeys(methods, nothing), None, guard, service)
    return router


async def _body(request: Request, service: Service) -> bytes:
    return await read_body(request, service.config.most_body_bytes)


def _pipeline(request: Request, service: Service) -> ServedPipeline:
    return service.find(request.path_params.get("pipeline"))


def _versioned(request: Request, service: Service) -> Bundle:
    """The bundle that the path names. Raises NotFound, NotReady."""
    bundle = service.find(request.path_params["pipeline"]).bundle()
    version = request.path_params.get("version")
    if version is not None and version not in bundle.names:
        raise no_version(bundle, version)
    return bundle


def _predictions(answers: Answers, *, single: bool) -> dict[str, Any]:
    """The document of POST /predict: one prediction, or a list of them."""
    rows = [
        {
            "id": id_,
            "prediction": row.value,
            "probabilities": row.probabilities,
            **({"left_out": row.left_out} if row.left_out else {}),
        }
        for id_, row in zip(answers.ids, answers.predicted, strict=True)
    ]
    named = {"pipeline": answers.bundle.pipeline, "versions": answers.versions}
    return {**named, **rows[0]} if single else {**named, "predictions": rows}


def _model(served: ServedPipeline) -> dict[str, Any]:
    """The document of GET /model. Raises NotReady."""
    bundle = served.bundle()
    schema = bundle.schema
    return {
        "pipeline": bundle.pipeline,
        "task": schema.task,
        "target": schema.target,
        "versions": bundle.versions,
        "age_s": round(served.follower.age_s, 3),
        "trouble": served.follower.public_trouble or None,
        "shadows": served.shadows.brief,
        "members": list(bundle.learner.members),
        "columns": schema.sources,
        "features": [column.model_dump(include={"name", "kind"}) for column in schema.columns],
    }
