"""Who may ask: the token, the names by which the service is called, and the size of a body.

A web page can make its visitor's browser ask a service on that visitor's own machine. So the `Host`
header must be a name of the service (a page that has its own name resolve to 127.0.0.1 sends its
own), and an `Origin`, if there is one, must be the service itself or be configured.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from starlette.requests import ClientDisconnect, Request

from flows.api.errors import Forbidden, Misdirected, RequestError, TooLarge, Unauthorized
from observability.core.errors import BadConfiguration
from observability.core.serve_config import Protected, ServeConfig

Access = Protected | Literal["label"]
"""What a route needs the token for."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Guard:
    """Checks the head of each request."""

    config: ServeConfig
    token: str | None

    def check(self, headers: Mapping[str, str], access: Access | None) -> None:
        """Raise Misdirected, Forbidden or Unauthorized unless the request may be answered.

        `access` names what the route needs the token for; None: nothing.
        """
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Misdirected(
                f"this service is not called {host!r}; name it in serve.hosts of the home's file "
                "if it is"
            )
        origin = headers.get("origin")
        if origin is not None and not self._may_ask(origin, host):
            raise Forbidden(
                f"a web page of {origin!r} asked; name it in serve.origins of the home's file if "
                "it may"
            )
        if self.token is None or access not in ("label", *self.config.protected):
            return
        given = headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            raise Unauthorized(
                "the token is missing or another one; send it as `Authorization: Bearer TOKEN`"
            )

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host)
        if {host.lower(), name} & {each.lower() for each in self.config.hosts}:
            return True
        bound = self.config.host.lower()
        if is_loopback(bound):
            return name in _LOOPBACK or name == bound
        if _is_unspecified(bound):
            # Every address of this machine. A page's own name is never an address.
            return name in _LOOPBACK or _address(name) is not None
        return name == bound

    def _may_ask(self, origin: str, host: str) -> bool:
        return origin in self.config.origins or origin in (f"http://{host}", f"https://{host}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def read_token(config: ServeConfig, environment: str | None, home: Path) -> str | None:
    """The token of the environment, else of the file. Raises BadConfiguration.

    A service that others can reach must have one.
    """
    token = environment
    if token is None and config.token_file is not None:
        path = home / config.token_file
        try:
            token = path.read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfiguration(f"serve.token_file: {path} cannot be read: {error}") from error
        if not token:
            raise BadConfiguration(f"serve.token_file: the first line of {path} has no token")
    if token is None and not is_loopback(config.host):
        raise BadConfiguration(
            f"serve.host: {config.host} can be reached from other machines, and there is no token: "
            "set THERMODRIFT_TOKEN or serve.token_file, or listen on 127.0.0.1"
        )
    return token


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The body of a request.

    Raises TooLarge before more than that is in memory, and RequestError if the client goes away.
    """
    announced = request.headers.get("content-length", "0")
    size, chunks = 0, []
    if announced.isdecimal() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most_bytes:
                raise _too_large(most_bytes)
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise RequestError("the client went away before the end of its request") from error
    return b"".join(chunks)


def _too_large(most_bytes: int) -> TooLarge:
    return TooLarge(
        f"a body of at most {most_bytes} bytes was allowed; send fewer records at once, or raise "
        "serve.most_body_bytes in the home's file"
    )


def _without_port(host: str) -> str:
    """The name or address of a Host header, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_unspecified(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_unspecified
