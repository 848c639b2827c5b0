"""JSON values as text and back, exactly: what cannot come back as it was is refused. Pure.

Integers stay integers, texts stay texts, and floats are written by `repr`, from which Python reads
the same float again. NaN and infinity are no JSON. A tuple would come back as a list, and a key
that is no text as a text: both are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from models.core.record_schema import Label
from models.inbox.errors import InvalidContent

_DEEPEST = 64
LONGEST_ID = 256
_PLAIN = frozenset({str, int, bool, type(None)})
_COMPACT = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_SORTED = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def encode(values: Mapping[str, Any], what: str) -> str:
    """Return the JSON text of `values`, in ASCII. Messages call them `what`.

    Raises InvalidContent, which names the key of the value that is refused.
    """
    content = dict(values)
    _check(content, what)
    return _dump(content, what)


def encode_label(label: Label, id: str) -> str:  # noqa: A002 - it is the id of the prediction
    """Return the JSON text of a label. Raises InvalidContent, which names the prediction."""
    what = f"the label of {id!r}"
    if isinstance(label, (str, int, float)):  # JSON values come from elsewhere
        _check(label, what)
        return _dump(label, what)
    raise InvalidContent(f"{what} is {label!r}; a text or a number was expected")


def check_id(id: str) -> None:  # noqa: A002 - it is the id of the prediction
    """Raise InvalidContent unless `id` can be stored and found again."""
    if not isinstance(id, str) or not 1 <= len(id) <= LONGEST_ID or not _is_unicode(id):
        raise InvalidContent(
            f"an id is a text of 1 to {LONGEST_ID} characters that UTF-8 can write; came: "
            f"{repr(id)[:LONGEST_ID]}"
        )


def check_moment(seconds: float, what: str) -> float:
    """Return a moment as a float. Raises InvalidContent where it is no finite number."""
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not math.isfinite(seconds):
        raise InvalidContent(f"{what} is a finite number of seconds since 1970; came: {seconds!r}")
    return float(seconds)


def decode(text: str) -> Any:
    """Return the value of a text that `encode` or `encode_label` wrote."""
    return json.loads(text)


def is_same_label(first: str, second: str) -> bool:
    """Return whether two encoded labels are one: 1 is 1.0, and neither is "1" or true."""
    if first == second:
        return True
    one, other = decode(first), decode(second)
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def digest(predicted_at: float, *texts: str) -> bytes:
    """Return 16 bytes that are equal for equal content, in whatever order its keys stand."""
    canonical = _SORTED.encode(json.loads(f"[{predicted_at!r},{','.join(texts)}]"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).digest()


def _dump(content: Any, what: str) -> str:
    try:
        return _COMPACT.encode(content)
    except ValueError as error:  # Python refuses to write an integer of thousands of digits.
        raise InvalidContent(f"{what} cannot be written as JSON: {error}") from error


def _check(value: Any, what: str) -> None:
    fault = _fault(value, 0)
    if fault is not None:
        raise InvalidContent(f"{what}{fault.where} {fault.why}")


class _Fault(NamedTuple):
    where: str
    why: str

    def within(self, key: str | int) -> _Fault:
        return self._replace(where=f"[{key!r}]{self.where}")


def _fault(value: Any, depth: int) -> _Fault | None:
    """Return what of a value is no JSON, and where; None: all of it is JSON."""
    if type(value) in _PLAIN or isinstance(value, (str, int)):
        return None
    if isinstance(value, float):
        if math.isfinite(value):
            return None
        return _Fault("", f"is {value!r}, which is no JSON. Send null for a value that is missing")
    if not isinstance(value, (dict, list)):
        return _Fault(
            "",
            f"is of type {type(value).__name__}, which JSON has not. "
            "Give a text, a number, a truth value, null, a list or a dict",
        )
    if depth >= _DEEPEST:
        return _Fault("", f"is nested deeper than {_DEEPEST} levels. Flatten it")
    if isinstance(value, list):
        return _fault_within(enumerate(value), depth + 1)
    for key in value:
        if not isinstance(key, str):
            return _Fault("", f"has the key {key!r}; a JSON key is a text")
    return _fault_within(value.items(), depth + 1)


def _fault_within(values: Iterable[tuple[Any, Any]], depth: int) -> _Fault | None:
    for key, inner in values:
        # Most values are plain: the call is saved for each of them.
        if type(inner) not in _PLAIN and (fault := _fault(inner, depth)) is not None:
            return fault.within(key)
    return None


def _is_unicode(text: str) -> bool:
    # A lone surrogate is a str in Python and no text anywhere else.
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)
