"""Makers for the tests of the service: a pipeline that has learned, and a service on a port."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.routing import BaseRoute

from flows.api import server
from flows.api.safety import Guard
from flows.api.service import Service
from flows.config import pipeline
from flows.loop import local_loop
from models.serving.fake_inbox import FakeInbox
from observability.core.paths import Places
from observability.core.serve_config import ServeConfig
from tests.flows.makers import make_pipeline
from tests.flows.plain_loop import without_prefect

TOKEN = "a-token"
WAIT_S = 60.0


@dataclass(frozen=True)
class Learned:
    """A pipeline that has learned from a stream, and that a test may change."""

    file: Path
    home: Path

    @property
    def places(self) -> Places:
        """The home's paths."""
        return Places(self.home)

    def copy(self, folder: Path) -> Learned:
        """The same in a folder of its own."""
        shutil.copytree(self.file.parent, folder, dirs_exist_ok=True)
        return Learned(folder / self.file.name, folder / self.home.name)

    def learn(self, records: int | None = None) -> dict[str, Any]:
        """Run the loop for so many records, or to the end of the stream."""
        with without_prefect():
            summary: dict[str, Any] = local_loop.run_loop.fn(self.file, self.home, records)
        return summary


def make_learned(folder: Path, until: int | None = 600, **tables: Any) -> Learned:
    """A pipeline that has learned so many records of its stream, in `folder`; None: all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Learned(make_pipeline(folder, **tables), folder / "home")
    found.learn(until)
    return found


@dataclass
class Running:
    """A service that answers on a port of its own."""

    service: Service
    url: str
    inboxes: dict[str, FakeInbox]
    said: list[str]
    server: uvicorn.Server

    def client(self, **options: Any) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.url, timeout=WAIT_S, trust_env=False, **options)

    def inbox(self) -> FakeInbox:
        """The inbox of the only pipeline."""
        (inbox,) = self.inboxes.values()
        return inbox


@contextmanager
def running(
    *learned: Learned,
    token: str | None = None,
    following: bool = False,
    more: server.More | None = None,
    **config: Any,
) -> Iterator[Running]:
    """Serve pipelines of one home with real uvicorn; without `following`, only `look` loads.

    `more` makes further routes, as the command does for its pages.
    """
    given = ServeConfig.model_validate({"port": 0, **config})
    inboxes: dict[str, FakeInbox] = {}
    said: list[str] = []
    files = [pipeline.read(each.file) for each in learned]
    service = Service(
        files,
        learned[0].places,
        given,
        lambda places: inboxes.setdefault(places.name, FakeInbox()),
        said.append,
    )
    guard = Guard(given, token)
    with server.bound(given) as listening, ExitStack() as stack:
        if following:
            service.start()
        else:
            service.look()
        routes = (
            () if more is None else stack.enter_context(more(learned[0].places, service, guard))
        )
        try:
            with _serving(service, guard, listening, routes) as serving:
                yield Running(service, server.address(listening), inboxes, said, serving)
        finally:
            service.close()


@contextmanager
def _serving(
    service: Service, guard: Guard, listening: Any, routes: Sequence[BaseRoute]
) -> Iterator[uvicorn.Server]:
    ready = threading.Event()
    running = server.server(service, guard, ready.set, routes)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        assert ready.wait(WAIT_S), "the server did not begin"
        yield running
    finally:
        running.should_exit = True
        thread.join()


@contextmanager
def held(worker: Executor) -> Iterator[None]:
    """Keep the worker busy inside the block."""
    began, over = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        over.wait()

    worker.submit(wait)
    began.wait()
    try:
        yield
    finally:
        over.set()
