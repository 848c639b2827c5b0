"""The routes of the pages: what a browser may ask of the service, and by which rules.

All that is read or done happens in one thread of its own, so that no page delays a prediction.
A page loads nothing from elsewhere: its policy forbids that, and every script but its own file.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from flows.api.endpoint import Endpoint, Handler
from flows.api.errors import (
    NotFound,
    NotReady,
    RequestError,
    Unprocessable,
)
from flows.api.safety import Guard, read_body
from flows.api.service import Service
from flows.page import access, actions, rendering
from flows.page.stories import Stories, stamp_of
from observability.core.errors import ThermodriftError, TryAgainLater
from observability.core.paths import Places
from observability.story import story
from observability.story.past import RANGES

PLOTLY_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' "
    "'sha256-gG0b4ixT/IQUp7JJLbyKcpYcYDjq2Wp8NGv3f+aasqo='"
)
"""Digests of the two styles of plotly.js 2.35 that are inline: an empty one, which its script
fills, and that of maps. So no other inline style is allowed."""
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {PLOTLY_STYLES}; img-src data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Without a referrer a form would send no origin, by which the service knows its own pages.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST_FORM_BYTES = 10_000
NEWS_EVERY_MS = 3_000
"""A browser asks for news so long after an answer: no connection is held open, so that many tabs
have one each, and the service ends at once."""
KINDS = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "plotly.min.js": "text/javascript; charset=utf-8",
}
YEAR_S = 31_536_000

Told = TypeVar("Told")


class Pages:
    """The pages of a service. `close` ends the thread in which they are made."""

    def __init__(self, home: Places, service: Service, guard: Guard) -> None:
        self._service = service
        self._guard = guard
        files = {name: each.follower.file.path for name, each in service.pipelines.items()}
        self._stories = Stories(home, files, self._serves)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="pages")

    @property
    def names(self) -> Sequence[str]:
        """The pipelines that have a page."""
        return list(self._service.pipelines)

    def routes(self) -> list[BaseRoute]:
        """All routes, for the service's router."""
        one = "/pages/{pipeline}"
        handlers: Mapping[str, tuple[str, Handler]] = {
            "/": ("GET", self.first),
            "/pages": ("GET", self.overview),
            one: ("GET", self.page),
            f"{one}/story.json": ("GET", self.document),
            f"{one}/news": ("GET", self.news),
            f"{one}/decisions/{{key}}": ("GET", self.decision),
            f"{one}/{{action}}": ("POST", self.act),
            "/static/{name}": ("GET", self.asset),
        }
        return [
            Route(path, Endpoint(path, {method: _told(handler)}, None, self._guard, self._service))
            for path, (method, handler) in handlers.items()
        ]

    def close(self) -> None:
        """End the thread; no request may be in flight."""
        self._worker.shutdown(wait=True)

    async def first(self, request: Request, service: Service) -> Response:
        """GET /: the page of the only pipeline, or the overview."""
        self._may_read(request)
        names = self.names
        return RedirectResponse(f"/pages/{names[0]}" if len(names) == 1 else "/pages", 302)

    async def overview(self, request: Request, service: Service) -> Response:
        """GET /pages: every pipeline in a few lines."""
        self._may_read(request)
        return _html(
            await self._made(
                lambda: rendering.overview([self._stories.tell(name) for name in self.names])
            )
        )

    async def page(self, request: Request, service: Service) -> Response:
        """GET /pages/{pipeline}: its page."""
        self._may_read(request)
        name, reach = service.find(request.path_params["pipeline"]).name, _reach(request)

        def made() -> bytes:
            told = self._stories.tell(name, reach)
            can = self._guard.token is not None
            return rendering.page(told, self.names, stamp_of(told), may_act=can).encode()

        return _packed_if_asked(request, await self._made(made), "text/html")

    async def document(self, request: Request, service: Service) -> Response:
        """GET /pages/{pipeline}/story.json: the same values for programs."""
        self._may_read(request)
        name, reach = service.find(request.path_params["pipeline"]).name, _reach(request)
        content = await self._made(
            lambda: orjson.dumps(story.document(self._stories.tell(name, reach)), default=str)
        )
        return _packed_if_asked(request, content, "application/json")

    async def news(self, request: Request, service: Service) -> Response:
        """GET /pages/{pipeline}/news: an event with the stamp of what would be told now."""
        self._may_read(request)
        name, reach = service.find(request.path_params["pipeline"]).name, _reach(request)
        told = await self._made(lambda: self._stories.tell(name, reach))
        news = {
            "stamp": stamp_of(told),
            "told_at": told.past.told_at.timestamp(),
            "stale_because": told.live.stale_because,
        }
        event = f"retry: {NEWS_EVERY_MS}\ndata: {orjson.dumps(news).decode()}\n\n"
        return Response(event, headers=HEADERS, media_type="text/event-stream")

    async def decision(self, request: Request, service: Service) -> Response:
        """GET /pages/{pipeline}/decisions/{key}: one decision with its numbers and its SQL."""
        self._may_read(request)
        name = service.find(request.path_params["pipeline"]).name
        key = request.path_params["key"]
        try:
            sql, rows = await self._made(lambda: self._stories.decision(name, key))
        except ValueError as error:
            raise NotFound(f"{key!r} names no decision") from error
        if not rows:
            raise NotFound(f"pipeline {name} has no decision {key!r} in its history")
        return _html(rendering.decision(name, sql, rows))

    async def act(self, request: Request, service: Service) -> Response:
        """POST /pages/{pipeline}/{action}: what a person decides, with the token in the form."""
        name, action = request.path_params["pipeline"], request.path_params["action"]
        name = service.find(name).name
        if action not in actions.ACTIONS:
            raise NotFound(f"{action!r} is nothing to decide here")
        form = _form(await read_body(request, MOST_FORM_BYTES))
        access.may_act(self._guard, request.headers, form.get("token", ""))
        done = actions.ACTIONS[action]
        told = await self._made(lambda: done(self._stories.home, name, form, datetime.now(UTC)))
        service.say(f"{name}: by the page: {told}")
        return _html(rendering.message("Done", told, name))

    async def asset(self, request: Request, service: Service) -> Response:
        """GET /static/{name}: style, script, and plotly, packed where the browser takes that."""
        name = request.path_params["name"]
        if name not in KINDS:
            raise NotFound(f"there is no file {name!r} here")
        path = rendering.asset_path(name)
        pack = _packed if _takes_gzip(request) else Path.read_bytes
        content = await self._made(lambda: pack(path))
        headers = {**HEADERS, "Cache-Control": f"public, max-age={YEAR_S}, immutable"}
        headers |= _encoding(request)
        return Response(content, headers=headers, media_type=KINDS[name])

    async def _made(self, make: Callable[[], Told]) -> Told:
        """What the thread of the pages makes."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, make)

    def _serves(self, name: str) -> Mapping[str, Any]:
        """What the service answers with now."""
        follower = self._service.pipelines[name].follower
        bundle = follower.bundle
        return {
            "champion": None if bundle is None else bundle.champion_version,
            "position": None if bundle is None else bundle.position,
            "age_s": follower.age_s,
            # Before the first run nothing is wrong: the learner has not begun.
            "trouble": follower.trouble if follower.places.checkpoint.exists() else "",
        }

    def _may_read(self, request: Request) -> None:
        access.may_read(self._guard, request.headers)


@contextmanager
def closing(pages: Pages) -> Iterator[list[BaseRoute]]:
    """The routes of pages, which are closed afterwards."""
    try:
        yield pages.routes()
    finally:
        pages.close()


def opened(home: Places, service: Service, guard: Guard) -> AbstractContextManager[list[BaseRoute]]:
    """The routes of the pages of a service, for as long as it runs."""
    return closing(Pages(home, service, guard))


def _told(handler: Handler) -> Handler:
    """The handler, with errors as pages for those who read HTML."""

    async def told(request: Request, service: Service) -> Response:
        try:
            return await handler(request, service)
        except ThermodriftError as error:
            if "text/html" not in request.headers.get("accept", ""):
                raise _as_request_error(error) from error
            found = _as_request_error(error)
            name = request.path_params.get("pipeline")
            known = name if name in service.pipelines else None
            content = rendering.message("This did not work", f"{found}", known)
            return _html(content, found.status, found.headers)

    return told


def _as_request_error(error: ThermodriftError) -> RequestError:
    """The error with a status code: what cannot be done as asked is 422, what is busy 503."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, TryAgainLater):
        return NotReady(str(error))
    return Unprocessable(str(error))


def _html(
    content: str, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
) -> Response:
    return HTMLResponse(content, status, headers={**HEADERS, **headers})


def _packed_if_asked(request: Request, content: bytes, kind: str) -> Response:
    """A long answer, packed where the browser takes that: nothing in it is secret."""
    if _takes_gzip(request):
        content = gzip.compress(content, 3)
    headers = {**HEADERS, **_encoding(request)}
    return Response(content, headers=headers, media_type=kind)


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


def _encoding(request: Request) -> Mapping[str, str]:
    packed = {"Content-Encoding": "gzip"} if _takes_gzip(request) else {}
    return {"Vary": "Accept-Encoding", **packed}


def _reach(request: Request) -> str:
    """How much of the past is asked for. Raises NotFound."""
    reach = request.query_params.get("range", "all")
    if reach not in RANGES:
        raise NotFound(f"range is one of {', '.join(RANGES)}; came: {reach!r}")
    return reach


def _form(body: bytes) -> actions.Form:
    """The fields of a form; of two of one name the last. Raises Unprocessable."""
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise Unprocessable(f"a form was expected: {error}") from error


@cache
def _packed(path: Path) -> bytes:
    """A file, packed once for all who ask."""
    return gzip.compress(path.read_bytes(), 6)
