"""The tree of errors, and the exit code that each one ends a command with.

Pure. Adapters raise subclasses of these, which also are the builtin error that they resemble:

    ThermodriftError            1   something failed, and the message says what to do
    ├── BadConfiguration       78   a file, key or option that a person must correct
    └── TryAgainLater          75   nothing is wrong, but not now (another process holds the file)
"""

from __future__ import annotations


class ThermodriftError(Exception):
    """A failure whose message says what failed, why, and what to do about it."""

    exit_code = 1


class BadConfiguration(ThermodriftError, ValueError):
    """A mistake in a file, key or option: names it, what was allowed, and what came."""

    exit_code = 78


class TryAgainLater(ThermodriftError):
    """The request is valid, but it cannot be met at this moment."""

    exit_code = 75
