"""Pickles models of any depth. Never load bytes whose signature is not verified.

A river tree is a chain of nodes, and the standard pickler recurses once per node in C, where the
limit cannot be raised on Python 3.12 and 3.13. The pickler written in Python recurses in Python
frames alone, which live on the heap; it is about fifty times slower, so it is only the fallback.
Loading needs no such measure: pickle's loader is a loop.
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
"""Python frames that the fallback may use: about 200,000 nodes deep, at most 1.5 GB."""
STACK_BYTES = 512 * 2**20
"""Address space for its thread's C stack; only touched pages use memory."""

_one_at_a_time = threading.Lock()


class CannotPickle(ThermodriftError, ValueError):
    """A model holds something that cannot be pickled: an open file, a lock, a local function."""


class CannotLoad(ThermodriftError, ValueError):
    """Bytes that cannot be unpickled: they are cut short, or a class no longer exists."""


def dumps(obj: object) -> bytes:
    """Pickle `obj`. Raises CannotPickle."""
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
    """Unpickle what `dumps` returned. This runs code: verify the signature of `content` first.

    Raises CannotLoad if the bytes are damaged or a class in them cannot be found.
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
    """Describe which of `names` have another minor version `there` than `here`.

    Pickles are not promised to mean the same across minor releases.
    """
    known = there if isinstance(there, dict) else {}
    return [
        f"{name} {known.get(name, 'of an unknown version')} (here {here[name]})"
        for name in names
        if str(known.get(name)).split(".")[:2] != here[name].split(".")[:2]
    ]


def _dumps_deep(obj: object) -> bytes:
    """Pickle with the pickler written in Python, in a thread of its own; then restore all limits.

    That pickler calls its own `save_reduce` with unpacked arguments, and from Python 3.12 on the
    interpreter takes such a call of a bound method through C, where the depth is fixed. The call
    of a plain function stays in Python.
    """
    answers: list[bytes] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            file = io.BytesIO()
            kind: Any = pickle._Pickler  # typeshed declares the class without its methods.
            pickler, bound = kind(file, protocol=5), kind.save_reduce

            def save_reduce(*parts: Any, **named: Any) -> None:
                bound(pickler, *parts, **named)

            pickler.save_reduce = save_reduce
            pickler.dump(obj)
            answers.append(file.getvalue())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
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
