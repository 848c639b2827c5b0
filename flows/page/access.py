"""Who may read a page, and who may decide on it: by the token, not by what a browser sends alone.

The names and origins of a request are checked by the service itself (`flows.api.safety`).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping

from flows.api.errors import Forbidden, Unauthorized
from flows.api.safety import Guard, is_loopback


class AskForToken(Unauthorized):
    """A browser shall ask its user for the token."""

    headers: Mapping[str, str] = {
        "WWW-Authenticate": 'Basic realm="thermodrift: the token as password", charset="UTF-8"'
    }


def may_read(guard: Guard, headers: Mapping[str, str]) -> None:
    """Raise AskForToken where a page needs the token, and it did not come.

    A page that other machines can reach always needs it. Programs send it as a bearer, browsers as
    the password of any user.
    """
    config, token = guard.config, guard.token
    needs = "page" in config.protected or not is_loopback(config.host)
    if token is None or not needs:
        return
    if not any(_equal(given, token) for given in (_bearer(headers), _password(headers))):
        raise AskForToken("this page needs the token of the service, as the password")


def may_act(guard: Guard, headers: Mapping[str, str], given: str) -> None:
    """Raise Forbidden or Unauthorized unless the form (it has `given`) or a bearer has the token.

    A browser sends a password by itself, so another page could make it do that: it does not count.
    """
    if guard.token is None:
        raise Forbidden(
            "nothing can be decided here without a token: start the service with "
            "THERMODRIFT_TOKEN or serve.token_file, or use the command"
        )
    if not any(_equal(each, guard.token) for each in (given, _bearer(headers))):
        raise Unauthorized("the token is missing or another one; nothing was changed")


def _bearer(headers: Mapping[str, str]) -> str:
    """What came as `Authorization: Bearer`; empty: nothing did."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    return given if kind.lower() == "bearer" else ""


def _password(headers: Mapping[str, str]) -> str:
    """The password of `Authorization: Basic`; empty: there is none."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())
