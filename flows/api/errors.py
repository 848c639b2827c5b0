"""The errors of a request, each with its status code. The message says what, why and what to do.

ThermodriftError
└── RequestError            400   the request cannot be read
    ├── Unauthorized        401   the token is missing or another one
    ├── Forbidden           403   a web page of another origin asked
    ├── NotFound            404   no such route, pipeline or version
    ├── WrongMethod         405
    ├── Conflict            409   an id was used for another prediction
    ├── TooLarge            413   the body, or its number of records
    ├── Misdirected         421   a host name that is not the service's
    ├── Unprocessable       422   JSON of another shape, or records that do not fit
    ├── Busy                429   too much waits
    ├── TooManyRequests     429   this client asks more often than it may
    ├── NotReady            503   there is no bundle yet
    └── NotKept             503   the inbox cannot take it, as on a full disk
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from observability.core.errors import ThermodriftError


class RequestError(ThermodriftError, ValueError):
    """A request that is not answered; `details` are further keys of the answer's document."""

    status = 400
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})


class Unauthorized(RequestError):
    """The token is missing, or it is another one."""

    status = 401
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):
    """A web page of another origin asked."""

    status = 403


class NotFound(RequestError):
    """There is no such route, pipeline or version."""

    status = 404


class WrongMethod(RequestError):
    """The route is there, and takes another method."""

    status = 405

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"this route takes {allowed}, {method} came", {"allowed": allowed})
        self.headers = {"Allow": allowed}


class Conflict(RequestError):
    """An id was used for another prediction."""

    status = 409


class TooLarge(RequestError):
    """The body has too many bytes, or too many records."""

    status = 413


class Misdirected(RequestError):
    """The request was sent to a host name that is not the service's."""

    status = 421


class Unprocessable(RequestError):
    """The JSON has another shape, or its records do not fit the stream."""

    status = 422


class Busy(RequestError):
    """Too much waits; the same request is answered later."""

    status = 429
    headers: Mapping[str, str] = {"Retry-After": "1"}


class TooManyRequests(RequestError):
    """This client asks more often than it may."""

    status = 429

    def __init__(self, rate: float, wait_s: float) -> None:
        super().__init__(
            f"at most {rate:g} requests a second are answered to one client in the long run; ask "
            f"again in {wait_s:.1f} s, send several records in one request, or raise serve.rate in "
            "the home's file"
        )
        self.headers = {"Retry-After": str(max(math.ceil(wait_s), 1))}


class NotReady(RequestError):
    """There is no bundle yet."""

    status = 503
    headers: Mapping[str, str] = {"Retry-After": "5"}


class NotKept(RequestError):
    """The inbox cannot take predictions or labels, as on a full disk."""

    status = 503
    headers: Mapping[str, str] = {"Retry-After": "5"}
