"""One route as an ASGI application: checks, handler, errors as JSON, metrics. Bytes in, bytes out.

Nothing of FastAPI is on this way: for one record, its parsing and its models cost more than the
prediction. An error's document has `error`, a sentence, and never a traceback.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flows.api.errors import NotReady, RequestError, WrongMethod
from flows.api.safety import Access, Guard
from flows.api.service import Service
from observability.core.errors import TryAgainLater

JSON = "application/json"
Handler = Callable[[Request, Service], Awaitable[Response]]


class JsonResponse(Response):
    """A document as JSON, by orjson: NaN is null."""

    media_type = JSON

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


@dataclass(frozen=True)
class Endpoint:
    """A route: what answers each of its methods."""

    template: str
    """Its path as it is counted, such as /predict/{pipeline}."""
    handlers: Mapping[str, Handler]
    access: Access | None
    """What it needs the token for; None: nothing."""
    guard: Guard
    service: Service
    is_limited: bool = True
    """Whether the rate of each client counts here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began_s = time.perf_counter()
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)
        took_s = time.perf_counter() - began_s
        self.service.metrics.answered(self.template, response.status_code, took_s)

    async def _answer(self, request: Request) -> Response:
        try:
            if self.is_limited:
                peer = None if request.client is None else request.client.host
                self.guard.admit(peer, request.headers)
            self.guard.check(request.headers, self.access)
            return await self._handler(request.method)(request, self.service)
        except RequestError as error:
            return _problem(error)
        except TryAgainLater as error:
            self.service.say(f"{self.template} could not be answered now: {error}")
            return _problem(
                NotReady("what this needs is in use; ask again, or see the service's log")
            )
        except Exception:  # noqa: BLE001 - a request must be answered; the log has the traceback
            self.service.say(f"{self.template} failed:\n{traceback.format_exc()}")
            broken = "the service failed on this request; its log says where and why"
            return JsonResponse({"error": broken}, 500)

    def _handler(self, method: str) -> Handler:
        handler = self.handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise WrongMethod(method, ", ".join(self.handlers))
        return handler


def _problem(error: RequestError) -> JsonResponse:
    document = {"error": str(error), **error.details}
    return JsonResponse(document, error.status, headers=dict(error.headers))
