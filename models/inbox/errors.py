"""The errors of the inbox. Each message says what failed, why, and what to do. Pure."""

from __future__ import annotations

from observability.core.errors import ThermodriftError, TryAgainLater


class InboxBusy(TryAgainLater):
    """Another process has the inbox open to write, or has its file locked."""


class InboxClosed(ThermodriftError, RuntimeError):
    """The inbox was closed before the call."""


class InboxDamaged(ThermodriftError, OSError):
    """The file is corrupt, or it is no inbox. Nothing was changed or deleted."""


class InboxMissing(ThermodriftError, FileNotFoundError):
    """There is no inbox to read yet."""


class InboxUnwritable(ThermodriftError, OSError):
    """The disk refused. The same call may be repeated, whether it was committed or not."""


class InboxVersionUnknown(ThermodriftError):
    """The file has a schema of another version of thermodrift."""


class InvalidContent(ThermodriftError, ValueError):
    """A value that cannot be stored exactly: the message names its key."""


class PositionsForgotten(ThermodriftError, LookupError):
    """Joined examples were asked for that `forget` has dropped."""


class RecordConflict(ThermodriftError, ValueError):
    """An id was recorded before, with other content. `id` names it."""

    def __init__(self, id: str) -> None:  # noqa: A002 - it is the id of the prediction
        super().__init__(
            f"the prediction {id!r} was recorded before with other content, and that one stays. "
            "Nothing of this call was recorded. Give each prediction an id of its own"
        )
        self.id = id
