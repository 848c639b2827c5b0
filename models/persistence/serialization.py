"""Models to bytes and back, however deep they are. Never load bytes whose seal is not verified.

A river tree is a chain of nodes, and the standard pickler recurses once per node in C, where the
limit cannot be raised on Python 3.12 and 3.13. The pickler written in Python recurses in Python
frames alone, which live on the heap; it is some fifty times slower, so it is only the fall-back.
Loading needs no such care: pickle's loader is a loop.
"""

from __future__ import annotations

import io
import pickle
import platform
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from observability.core.errors import ThermodriftError

FRAMES = 1_500_000
"""Python frames that the fall-back may stack up: about 200,000 nodes deep, at most 1.5 GB."""
STACK_BYTES = 512 * 2**20
"""Address space for its thread's C stack; only the pages that are touched are ever taken."""

_one_at_a_time = threading.Lock()


class CannotPickle(ThermodriftError, ValueError):
    """A model holds something that has no bytes: an open file, a lock, a function made inside."""


class CannotLoad(ThermodriftError, ValueError):
    """Bytes that do not become a model again: cut short, or its class is no longer there."""


def dumps(obj: object) -> bytes:
    """The bytes of `obj`. Raises CannotPickle where a part of it has none."""
    try:
        try:
            return pickle.dumps(obj, protocol=5)
        except RecursionError:
            return _dumps_deep(obj)
    except RecursionError as error:
        raise CannotPickle(
            f"a {type(obj).__name__} cannot be saved: it is nested deeper than {FRAMES:,} frames "
            f"of the pickler, or without end; bound the depth of the model"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise CannotPickle(
            f"a {type(obj).__name__} cannot be saved: {type(error).__name__}: {error}; define its "
            f"classes and functions at the top level of a module, and keep files, locks and "
            f"connections out of it"
        ) from error


def loads(content: bytes) -> object:
    """The object that `dumps` was given. Unpickling runs code: verify the seal of `content` first.

    Raises CannotLoad where the bytes are damaged or a class in them cannot be found.
    """
    try:
        return pickle.loads(content)
    except MemoryError:
        raise
    except Exception as error:
        raise CannotLoad(
            f"saved bytes do not load: {type(error).__name__}: {error}; if a class of your own "
            f"was moved or renamed, bring its name back; else restore the file from a backup"
        ) from error


def versions(*names: str) -> dict[str, str]:
    """The versions of Python and of these distributions, as installed here."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def others(there: object, here: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Which of `names` have another minor version `there` than `here`, in words.

    Pickles are not promised to mean the same across minor releases.
    """
    known = there if isinstance(there, dict) else {}
    return [
        f"{name} {known.get(name, 'of an unknown version')} (here {here[name]})"
        for name in names
        if str(known.get(name)).split(".")[:2] != here[name].split(".")[:2]
    ]


def _pickler(file: io.BytesIO) -> Any:
    """The pickler written in Python, recursing in Python frames alone.

    It calls its own `save_reduce` with unpacked arguments, and from Python 3.12 on the interpreter
    takes such a call of a bound method through C, where the depth is fixed; that of a plain
    function stays in Python.
    """
    # typeshed knows the class and none of what it does.
    kind: Any = pickle._Pickler
    pickler, bound = kind(file, protocol=5), kind.save_reduce

    def save_reduce(*parts: Any, **named: Any) -> None:
        bound(pickler, *parts, **named)

    pickler.save_reduce = save_reduce
    return pickler


def _dumps_deep(obj: object) -> bytes:
    """Pickle in Python frames, in a thread of its own, and leave every limit as it was."""
    answers: list[bytes] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            file = io.BytesIO()
            _pickler(file).dump(obj)
            answers.append(file.getvalue())
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits
            failures.append(error)

    with _one_at_a_time:
        frames, stack_bytes = sys.getrecursionlimit(), threading.stack_size(STACK_BYTES)
        try:
            sys.setrecursionlimit(max(FRAMES, frames))
            thread = threading.Thread(target=work, name="pickling-deep")
            thread.start()
            thread.join()
        finally:
            threading.stack_size(stack_bytes)
            sys.setrecursionlimit(frames)
    if failures:
        raise failures[0]
    return answers[0]
