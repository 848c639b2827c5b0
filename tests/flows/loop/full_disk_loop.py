"""The loop, driven without Prefect in this process, on a disk that becomes full at chosen moments.

    python -m tests.flows.loop.full_disk_loop DISK PIPELINE MOMENT...

A moment is ``NAME@NTH-LEAVE``: before the NTH passing of the fault point NAME, or the NTH write of
a file that has NAME in its path, the disk is filled, but for LEAVE bytes. With a ``+`` behind it
there is space again after the next fold. Prints one JSON document per moment: how the run ended
that met it, whether all that has a name was whole on the full disk, and how the run ended that was
repeated once the disk had space. Each moment has a home of its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from flows.loop import local_loop
from models.persistence import checkpoint
from models.persistence.signing import SigningKey
from models.prediction_log import prediction_log
from models.registry.registry import Registry
from observability.core import atomic_file, failpoints
from observability.core.paths import Places
from observability.history.store import FlushResult, History
from tests.flows.loop.small_disk import fill
from tests.flows.makers import NAME
from tests.flows.plain_loop import without_prefect

ENDLESS = 10**12


class Moment:
    """Fills the disk when its moment has come."""

    def __init__(self, text: str, filler: Path) -> None:
        self.name, _, rest = text.partition("@")
        nth, _, leave = rest.rstrip("+").partition("-")
        self._left, self._leave_bytes, self._filler = int(nth), int(leave), filler
        self._brief = rest.endswith("+")
        self.full_s: float | None = None

    def passed(self, name: str) -> None:
        """Somebody passes a fault point, or is about to write a file, of this name."""
        if self.name not in name:
            return
        self._left -= 1
        if self._left == 0:
            fill(self._filler, self._leave_bytes)
            self.full_s = time.monotonic()

    def folded(self) -> None:
        """A fold is over, well or not."""
        if self._brief and self.full_s is not None:
            self._filler.unlink(missing_ok=True)


def tried(home: Path, pipeline: Path, text: str) -> dict[str, Any]:
    """Meet the moment, look at what is there, make space, run again."""
    filler = home.with_name("filler")
    moment = Moment(text, filler)
    write, point, fold = atomic_file.write, failpoints.point, History.flush

    def watched_write(path: Path, content: bytes) -> None:
        moment.passed(str(path))
        write(path, content)

    def watched_point(name: str) -> None:
        moment.passed(name)
        point(name)

    def watched_fold(history: History) -> FlushResult:
        try:
            return fold(history)
        finally:
            moment.folded()

    with (
        mock.patch.object(atomic_file, "write", watched_write),
        mock.patch.object(failpoints, "point", watched_point),
        mock.patch.object(History, "flush", watched_fold),
    ):
        met = ended(pipeline, home)
    found = {
        "moment": text,
        "home": home.name,
        "met": met,
        "after_s": time.monotonic() - moment.full_s if moment.full_s is not None else None,
        "whole": whole(home),
    }
    filler.unlink(missing_ok=True)
    return {**found, "again": ended(pipeline, home)}


def ended(pipeline: Path, home: Path) -> str:
    """The outcome of one run, or the error that ended it."""
    try:
        return str(local_loop.run_loop.fn(pipeline, home)["outcome"])
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def whole(home: Path) -> bool:
    """Read everything that has a name: half of it would raise."""
    places = Places(home).pipeline(NAME)
    if not Places(home).key.exists():
        return not places.checkpoint.exists()
    seal = SigningKey.open(Places(home).key)
    store = Registry(places, seal)
    for version in store.versions():
        store.verify(version)
    position = 0
    if places.checkpoint.exists():
        checkpoint.load(places.checkpoint, seal)
        position = checkpoint.header(places.checkpoint)["position"]
    if position == 0:
        return True
    logged = prediction_log.read(places.predictions, 0, ENDLESS)["position"].to_pylist()
    return bool(logged[:position] == list(range(position)))


def main() -> None:
    """Go through the moments."""
    disk, pipeline, *moments = sys.argv[1:]
    with without_prefect():
        for number, moment in enumerate(moments):
            found = tried(Path(disk, f"home{number}"), Path(pipeline), moment)
            print(json.dumps(found), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
