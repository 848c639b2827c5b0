"""Follows a file of labels by key, and labels the inbox of a pipeline with what it says.

The place in the file is durable, and so are the labels that came before their predictions: these
are tried again, and given up after a while. A label that was joined and whose place was not written
yet comes a second time, and is a duplicate.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from flows.api.following import Follower
from flows.api.metrics import ServiceMetrics
from flows.config.pipeline import PipelineFile
from models.core.record_schema import Label, Schema
from models.inbox.records import LabelResult
from models.serving.outcomes import PredictionInbox
from models.stream.label_file import LabelFile
from models.stream.source import Cursor
from observability.core import atomic_file, failpoints
from observability.core.errors import ThermodriftError
from observability.core.paths import PipelinePlaces

AT_ONCE = 1_000
"""Labels that are joined in one call."""
MOST_BATCHES = 20
"""Batches that are read in one look."""
RETRY_S = 10.0
"""Seconds between two tries of labels whose predictions are not there."""


class ProgressDamaged(ThermodriftError, ValueError):
    """The file that says how far labels were read cannot be read itself."""


class EarlyLabel(BaseModel):
    """A label whose prediction is not there yet."""

    model_config = ConfigDict(frozen=True)
    id: str
    label: Label
    since_s: float
    """When it was read, in seconds since 1970."""


class Progress(BaseModel):
    """How far a file was read; kept on disk."""

    model_config = ConfigDict(frozen=True)
    path: str
    key: str
    target: str
    cursor: Cursor = Cursor()
    early: tuple[EarlyLabel, ...] = ()


def label_follower(
    follower: Follower,
    inbox: PredictionInbox,
    metrics: ServiceMetrics,
    joined: Callable[[Sequence[tuple[str, Label]]], None],
) -> LabelFollower | None:
    """What follows the file of labels of a served pipeline; None: its file names none.

    `joined` hears the labels that joined a prediction.
    """
    if follower.file.pipeline.labels.path is None:
        return None

    def schema() -> Schema | None:
        return None if follower.bundle is None else follower.bundle.schema

    def count(results: Sequence[LabelResult]) -> None:
        metrics.labelled(follower.name, results)

    return LabelFollower(follower.file, follower.places, schema, inbox, count, joined, follower.say)


class LabelFollower:
    """Labels what the file of one pipeline names. Only one thread may call `look`."""

    def __init__(
        self,
        file: PipelineFile,
        places: PipelinePlaces,
        schema: Callable[[], Schema | None],
        inbox: PredictionInbox,
        count: Callable[[Sequence[LabelResult]], None],
        joined: Callable[[Sequence[tuple[str, Label]]], None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`schema` is that of the pipeline, None while it has not begun; `clock` is since 1970.

        `count` hears what became of labels, and `joined` those that joined.
        """
        assert file.pipeline.labels.path is not None
        self._config = file.pipeline.labels
        self._path = file.beside(file.pipeline.labels.path)
        self._name = file.name
        self._kept = places.labels
        self._schema = schema
        self._inbox = inbox
        self._count = count
        self._joined = joined
        self._say = say
        self._clock = clock
        self._progress: Progress | None = None
        self._source: LabelFile | None = None
        self._tried_s = 0.0
        self._unfinished = 0
        self.outcomes: Counter[str] = Counter()
        """Of this process: by outcome, `without_label` and `rejected` rows among them."""
        self.trouble = "the pipeline has no checkpoint yet: its labels cannot be read before"
        """What is wrong now; empty: nothing. It names files: for the log."""
        self.public_trouble = self.trouble
        """The same for whoever asks, who need not know where this machine keeps its files."""

    def look(self) -> None:
        """Label what is new, and what came too early."""
        try:
            schema = self._schema()
            if schema is None:
                return
            self._read(schema)
            self._told("")
        except Exception as error:  # noqa: BLE001 - the service goes on, and says what is wrong
            self._told(
                f"{type(error).__name__}: {error}",
                f"the file cannot be read ({type(error).__name__}); the service's log says why",
            )

    def status(self) -> dict[str, Any]:
        """What is known of the file, for /readyz."""
        progress = self._progress
        return {
            "file": self._path.name,
            "position": None if progress is None else progress.cursor.position,
            "early": None if progress is None else len(progress.early),
            "unfinished_bytes": self._unfinished,
            "outcomes": dict(self.outcomes),
            "trouble": self.public_trouble or None,
        }

    def _read(self, schema: Schema) -> None:
        if self._source is None:
            self._source = LabelFile(self._path, self._config, schema)
        if (
            self._progress is not None
            and self._progress.cursor.position
            and not self._kept.exists()
        ):
            # A person removed it, so that the file is read anew.
            self._progress = None
        progress = self._progress or self._begun(schema)
        self._progress = self._try_again(progress)
        for _ in range(MOST_BATCHES):
            rows = self._source.read(self._progress.cursor, AT_ONCE)
            self._unfinished = rows.unfinished
            if rows.after == self._progress.cursor:
                return
            self.outcomes["without_label"] += rows.without_label
            self.outcomes["rejected"] += rows.rejected
            if rows.rejected:
                self._say(
                    f"{self._name}: {rows.rejected} rows of {self._path} before row "
                    f"{rows.after.position} name no label; the first: {rows.reason}"
                )
            now_s = self._clock()
            early = self._join([EarlyLabel(id=i, label=y, since_s=now_s) for i, y in rows.truths])
            self._keep(
                self._progress.model_copy(
                    update={
                        "cursor": rows.after,
                        "early": self._bounded([*self._progress.early, *early]),
                    }
                )
            )
            if rows.ended:
                return

    def _begun(self, schema: Schema) -> Progress:
        """Where the file was left; at its beginning, where another one was read."""
        target = self._config.target or schema.target
        begun = Progress(path=str(self._path), key=self._config.key, target=target)
        if not self._kept.exists():
            return begun
        try:
            kept = Progress.model_validate_json(self._kept.read_bytes())
        except ValueError as error:
            raise ProgressDamaged(
                f"{self._kept} is damaged, so that it is not known how far {self._path} was read: "
                "remove it, and the file is read from its beginning; "
                "what was joined stays, and comes as duplicate"
            ) from error
        same = (kept.path, kept.key, kept.target) == (begun.path, begun.key, begun.target)
        # Labels that came too early were read of the other file, and go on waiting.
        return kept if same else begun.model_copy(update={"early": kept.early})

    def _try_again(self, progress: Progress) -> Progress:
        """Try labels again that came too early, at times."""
        now_s = self._clock()
        if not progress.early or abs(now_s - self._tried_s) < RETRY_S:
            return progress
        self._tried_s = now_s
        left = self._bounded(self._join(progress.early))
        if left == progress.early:
            return progress
        return self._keep(progress.model_copy(update={"early": left}))

    def _join(self, labels: Sequence[EarlyLabel]) -> list[EarlyLabel]:
        """Join labels with their predictions; returns those whose predictions are not there."""
        early: list[EarlyLabel] = []
        for first in range(0, len(labels), AT_ONCE):
            part = labels[first : first + AT_ONCE]
            results = self._inbox.label([(each.id, each.label) for each in part], self._clock())
            early += [
                each
                for each, result in zip(part, results, strict=True)
                if result.outcome == "unknown"
            ]
            self._ended([each for each in results if each.outcome != "unknown"])
            pairs = zip(part, results, strict=True)
            self._joined([(each.id, each.label) for each, got in pairs if got.outcome == "joined"])
        if labels:
            failpoints.point("labels.after_join")
        return early

    def _bounded(self, early: Sequence[EarlyLabel]) -> tuple[EarlyLabel, ...]:
        """The labels that go on waiting; the others are given up, and are unknown."""
        oldest_s = self._clock() - self._config.early_s
        first = max(0, len(early) - self._config.most_early)
        kept = [each for each in early[first:] if each.since_s >= oldest_s]
        given_up = len(early) - len(kept)
        if given_up:
            self._say(
                f"{self._name}: {given_up} labels of {self._path} are given up: no prediction of "
                "their ids is known"
            )
            gone = {id(each) for each in early} - {id(each) for each in kept}
            self._ended(
                [LabelResult(each.id, "unknown", None) for each in early if id(each) in gone]
            )
        return tuple(kept)

    def _ended(self, results: Sequence[LabelResult]) -> None:
        self.outcomes.update(each.outcome for each in results)
        self._count(results)

    def _keep(self, progress: Progress) -> Progress:
        atomic_file.write(self._kept, progress.model_dump_json().encode())
        self._progress = progress
        return progress

    def _told(self, trouble: str, public: str = "") -> None:
        if trouble and trouble != self.trouble:
            self._say(f"{self._name}: the file of labels waits: {trouble}")
        self.trouble, self.public_trouble = trouble, public
