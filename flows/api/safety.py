"""Who may ask: the token, the names of the service, how often, and the size of a body.

A web page can make its visitor's browser ask a service on that visitor's own machine. So the `Host`
header must be a name of the service (a page that has its own name resolve to 127.0.0.1 sends its
own), and an `Origin`, if there is one, must be the service itself or be configured.

Each client may ask so often, by its address. What a proxy says of the address counts only from a
proxy that is configured: else each request could come from another address.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from flows.api.errors import (
    Forbidden,
    Misdirected,
    RequestError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)
from observability.core.errors import BadConfiguration
from observability.core.serve_config import Protected, ServeConfig

Access = Protected | Literal["label"]
"""What a route needs the token for."""

MOST_CLIENTS = 10_000
"""Clients whose requests are counted; the one that asked least recently is forgotten beyond it."""
_IPV6_CLIENT_BITS = 64
"""One client has a network of so many bits: it may choose each address in it."""
_ROUNDING_S = 1e-9
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class RateLimiter:
    """A token bucket for each client: `burst` requests at once, and `rate` a second after that.

    Used in one thread. Memory is bounded: beyond `most` clients the least recent one is forgotten,
    which then has a full bucket again.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        most: int = MOST_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._burst, self._most, self._clock = rate, burst, most, clock
        self._full_at_s: OrderedDict[str, float] = OrderedDict()
        """When the bucket of each client is full again; the most recent client is the last."""

    def take(self, client: str) -> float:
        """Take one request of this client; 0, or the seconds until it may ask again."""
        now_s = self._clock()
        full_at_s = max(self._full_at_s.pop(client, now_s), now_s) + 1 / self._rate
        wait_s = full_at_s - now_s - self._burst / self._rate
        if wait_s > _ROUNDING_S:
            # What is refused takes nothing: who asks on and on is answered at the rate.
            full_at_s -= 1 / self._rate
        self._full_at_s[client] = full_at_s
        if len(self._full_at_s) > self._most:
            self._full_at_s.popitem(last=False)
        return wait_s if wait_s > _ROUNDING_S else 0.0


@dataclass(frozen=True)
class Guard:
    """Checks the head of each request."""

    config: ServeConfig
    token: str | None

    @cached_property
    def _limiter(self) -> RateLimiter | None:
        rate = self.config.rate
        return None if rate is None else RateLimiter(rate, self.config.burst)

    def admit(self, peer: str | None, headers: Headers) -> None:
        """Count a request of whoever is at the other end. Raises TooManyRequests."""
        if self._limiter is None or self.config.rate is None:
            return
        forwarded = headers.getlist("x-forwarded-for")
        wait_s = self._limiter.take(client_of(peer, forwarded, self.config.proxies))
        if wait_s:
            raise TooManyRequests(self.config.rate, wait_s)

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


def client_of(peer: str | None, forwarded: Sequence[str], proxies: Sequence[str]) -> str:
    """Who asks, as a text by which its requests are counted.

    `forwarded` are the headers X-Forwarded-For. Each proxy appends the address that it saw, so they
    are read from the end, as far as proxies are known: what stands before, the client has written.
    """
    networks = [ipaddress.ip_network(each) for each in proxies]
    hops = [each.strip() for line in forwarded for each in line.split(",")]
    client = peer or ""
    while hops and _is_in(client, networks):
        hop = hops.pop()
        # Some proxies write the port of the client as well.
        address = _address(hop) or _address(_without_port(hop))
        if address is None:
            break
        client = str(address)
    address = _address(client)
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is not None:
            return str(mapped)
        return str(ipaddress.ip_network((address, _IPV6_CLIENT_BITS), strict=False))
    return client


def _is_in(client: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    address = _address(client)
    return address is not None and any(address in network for network in networks)


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
    if token is not None and not (token.isascii() and token.isprintable()):
        raise BadConfiguration(
            "the token (THERMODRIFT_TOKEN or serve.token_file) has characters beyond printable "
            "ASCII, which an HTTP header cannot carry: choose another one"
        )
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
