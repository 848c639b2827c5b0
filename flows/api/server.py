"""Runs the service: binds its address, serves until a signal, ends after the requests in flight."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import uvicorn
from starlette.routing import BaseRoute

from flows.api.routes import application
from flows.api.safety import Guard, read_token
from flows.api.service import Service
from flows.config import pipeline as pipelines
from flows.config import settings
from models.inbox.config import InboxConfig
from models.inbox.inbox import Inbox
from models.serving.outcomes import PredictionInbox
from observability.core import toml_config
from observability.core.errors import BadConfiguration, TryAgainLater
from observability.core.paths import PipelinePlaces, Places
from observability.core.serve_config import InboxBounds, ServeConfig
from observability.history import home_config

_BACKLOG = 2048

More = Callable[[Places, Service, Guard], AbstractContextManager[Sequence[BaseRoute]]]
"""Makes further routes, for as long as the service runs."""


class PortTaken(TryAgainLater, OSError):
    """Another process listens on that port."""


class _Server(uvicorn.Server):
    """Says when it is ready, and leaves signals to `serve`: uvicorn would raise them again."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def configured(home: Places, **options: str | int | tuple[str, ...] | None) -> ServeConfig:
    """The home's [serve], with the options of the command that were given.

    Raises BadConfiguration.
    """
    table = home_config.read(home).serve
    given = {name: value for name, value in options.items() if value is not None}
    return toml_config.checked({**table.model_dump(), **given}, ServeConfig, Path("serve"))


def serve(
    files: Sequence[Path], home: Places, config: ServeConfig, more: More, *, as_json: bool
) -> None:
    """Serve pipelines, and what `more` adds, until a signal comes.

    Raises BadConfiguration, PortTaken, and what the inboxes raise.
    """
    token = read_token(config, settings.token(), home.home)
    read = [pipelines.read(path) for path in files]
    with bound(config) as listening:
        service = Service(read, home, config, lambda places: open_inbox(places, config.inbox), _say)

        def on_ready() -> None:
            _announce(address(listening), service, as_json=as_json)

        guard = Guard(config, token)
        with contextlib.closing(service), more(home, service, guard) as routes:
            service.start()
            server(service, guard, on_ready, routes).run([listening])


def open_inbox(places: PipelinePlaces, bounds: InboxBounds) -> PredictionInbox:
    """The inbox of the pipeline at `places`. Raises what `Inbox.open` raises."""
    return Inbox.open(places.inbox, InboxConfig(**bounds.model_dump()))


def server(
    service: Service, guard: Guard, on_ready: Callable[[], None], more: Sequence[BaseRoute] = ()
) -> uvicorn.Server:
    """A server of the service and `more` routes, which calls `on_ready` once it answers."""
    options = uvicorn.Config(
        application(service, guard, more),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        # A client's pool keeps connections for about so long; one that is closed under it fails.
        timeout_keep_alive=75,
        # Behind a proxy nothing here depends on the client's address.
        proxy_headers=False,
        timeout_graceful_shutdown=int(max(service.config.shutdown_s, 1)),
    )
    return _Server(options, on_ready)


@contextlib.contextmanager
def bound(config: ServeConfig) -> Iterator[socket.socket]:
    """A socket that is bound to the configured address. Raises BadConfiguration, PortTaken."""
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, _, _, _, where = found[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise BadConfiguration(
            f"serve.host: {config.host!r} is no address here: {error}; name one of this machine"
        ) from error
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(where)
            listening.listen(_BACKLOG)
        except OSError as error:
            raise _unbound(config, error) from error
        yield listening


def _unbound(config: ServeConfig, error: OSError) -> BadConfiguration | PortTaken:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"another process listens on {config.host} port {config.port}; stop it, or choose "
            "another port with --port (0: any)"
        )
    return BadConfiguration(
        f"serve.host: cannot listen on {config.host} port {config.port}: {error}; name an address "
        "of this machine, and a port that this user may take"
    )


def address(listening: socket.socket) -> str:
    """The URL of what listens on this socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(url: str, service: Service, *, as_json: bool) -> None:
    """Print one line: the address, and what is served."""
    names = list(service.pipelines)
    if as_json:
        line = json.dumps({"address": url, "pipelines": names, "ready": service.is_ready})
    else:
        line = f"serving {', '.join(names)} on {url}"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    """One line, or a traceback, into the log; nothing that moves a terminal's cursor or colours."""
    plain = "".join(
        each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text
    )
    sys.stderr.write(f"{plain}\n")
    sys.stderr.flush()
