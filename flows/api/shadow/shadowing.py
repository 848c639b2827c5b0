"""Versions that answer in the shadow of a pipeline: after what is served, in a thread of their own.

They never delay or fail an answer: what they cannot keep up with is dropped and counted. A version
is verified before it is loaded, as a champion is; one that cannot be loaded is tried again later.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from flows.api.bodies import Asked
from flows.api.metrics import ServiceMetrics
from flows.api.shadow.shadow_log import ShadowAnswer, ShadowLog
from flows.config.pipeline import PipelineFile
from models.batch.batch_model import BatchAnswersNothing, BatchModel
from models.core import record_schema
from models.core.record_schema import Label
from models.persistence.signing import KeyUnusable, SigningKey
from models.registry.registry import Registry
from models.serving import request_rows
from models.serving.bundle import Bundle, Predicted
from observability.core.paths import Places

MOST_WAITING = 2_000
"""Records that may wait for the shadows; further ones are dropped."""
RETRY_S = 30.0
CLOSE_WITHIN_S = 5.0
"""A service that ends waits so long for its shadows; what is left is dropped, and counted."""


@dataclass
class Shadow:
    """One version that answers in the shadow."""

    version: str
    model: BatchModel | None = None
    trouble: str = ""
    """Why it does not answer, for whoever asks; the log has more."""
    tried_s: float = float("-inf")


class Shadows:
    """The shadows of one pipeline; without a version it does nothing."""

    def __init__(
        self,
        file: PipelineFile,
        home: Places,
        versions: Sequence[str],
        metrics: ServiceMetrics,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._home = file, home
        self._places = home.pipeline(file.name)
        self._metrics, self._say, self._clock = metrics, say, clock
        self._lock = threading.Lock()
        self._waiting = 0
        self._said = ""
        self._over_s = float("inf")
        """From when on what waits is dropped, by the clock."""
        self._log: ShadowLog | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self.shadows = [Shadow(version) for version in dict.fromkeys(versions)]

    @property
    def brief(self) -> list[dict[str, Any]]:
        """Of each, whether it answers, for whoever asks."""
        return [
            {
                "version": each.version,
                "ready": each.model is not None,
                "trouble": each.trouble or None,
            }
            for each in self.shadows
        ]

    def look(self) -> None:
        """Load the versions that are not loaded yet. Only one thread may call it."""
        for each in self.shadows:
            if each.model is None and self._clock() - each.tried_s >= RETRY_S:
                each.tried_s = self._clock()
                self._load(each)

    def offer(self, bundle: Bundle, asked: Asked, served: Sequence[Predicted]) -> None:
        """Let the shadows answer a request that was answered. Returns at once."""
        ready = [each for each in self.shadows if each.model is not None]
        if not ready:
            return
        at = time.time()
        self._submit(len(served), lambda: self._answer(ready, bundle, asked, served, at))

    def label(self, truths: Sequence[tuple[str, Label]]) -> None:
        """Add labels that joined their predictions to the log. Returns at once."""
        if truths and any(each.model is not None for each in self.shadows):
            at, count = time.time(), len(truths)
            self._submit(count, lambda: self._write(lambda log: log.label(truths, at), count))

    def close(self) -> None:
        """Finish what waits, as far as a few seconds suffice, and close the log."""
        self._over_s = self._clock() + CLOSE_WITHIN_S
        self._worker.shutdown(wait=True)
        if self._log is not None:
            self._log.close()

    def _submit(self, count: int, work: Callable[[], object]) -> None:
        """Let the thread do the work for so many records, unless too many wait already."""
        with self._lock:
            if self._waiting + count > MOST_WAITING:
                self._metrics.shadow_dropped(self._file.name, count)
                return
            self._waiting += count
        self._worker.submit(self._do, count, work)

    def _do(self, count: int, work: Callable[[], object]) -> None:
        try:
            if self._clock() < self._over_s:
                work()
            else:
                self._metrics.shadow_dropped(self._file.name, count)
        except Exception as error:  # noqa: BLE001 - nobody waits for a shadow
            self._failed(count, f"shadows: {type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._waiting -= count

    def _load(self, shadow: Shadow) -> None:
        try:
            shadow.model = self._registry().load(shadow.version, self._file.folder)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the service goes on
            told = f"it cannot be loaded ({type(error).__name__}); the service's log says why"
            if shadow.trouble != told:
                self._say(f"{self._file.name}: shadow {shadow.version}: {error}")
            shadow.trouble = told
            return
        shadow.trouble = ""
        self._say(f"{self._file.name}: version {shadow.version} answers in the shadow")

    def _registry(self) -> Registry:
        if not self._home.key.exists():
            # Opening it would make another one, which nothing here is signed with.
            raise KeyUnusable(f"the key {self._home.key} is not there; run the pipeline first")
        return Registry(self._places, SigningKey.open(self._home.key))

    def _answer(
        self,
        ready: Sequence[Shadow],
        bundle: Bundle,
        asked: Asked,
        served: Sequence[Predicted],
        at: float,
    ) -> None:
        rows = request_rows.parse(bundle.plan, asked.records, bundle.new_columns)
        frame = record_schema.frame(rows.table, bundle.schema)
        for shadow in ready:
            assert shadow.model is not None
            try:
                values = shadow.model.predict(frame).values
            except BatchAnswersNothing as error:
                self._failed(len(served), f"shadow {shadow.version}: {error}")
                continue
            self._record(shadow.version, bundle, asked, served, values, at)

    def _record(
        self,
        version: str,
        bundle: Bundle,
        asked: Asked,
        served: Sequence[Predicted],
        values: Sequence[Label],
        at: float,
    ) -> None:
        answers = [
            ShadowAnswer(
                id_, at, version, bundle.champion_version, bundle.position, row.value, value
            )
            for id_, row, value in zip(asked.ids, served, values, strict=True)
        ]
        if self._write(lambda log: log.record(answers), len(answers)):
            self._metrics.shadow_answered(self._file.name, version, len(answers))

    def _write(self, work: Callable[[ShadowLog], None], count: int) -> bool:
        """Do the work with the log, which is opened at its first use; whether it was done."""
        try:
            if self._log is None:
                self._log = ShadowLog(self._places.shadow)
            work(self._log)
        except (sqlite3.Error, OSError) as error:
            self._failed(count, f"the log of shadows {self._places.shadow}: {error}")
            return False
        return True

    def _failed(self, count: int, told: str) -> None:
        """Count it, and say it once, however often the same comes."""
        self._metrics.shadow_failed(self._file.name, count)
        if told != self._said:
            self._say(f"{self._file.name}: {told}")
        self._said = told
