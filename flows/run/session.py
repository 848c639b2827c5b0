"""One run of one pipeline, opened: its files, its state, and the one way to move both forward.

`Session.commit` is the only way that a run changes what it knows. In this order: the batch's
predictions are logged; the state, and in it what it owes the world, becomes the checkpoint; then
the deeds are done (the champion's pointer,
rows of history). Killed in between, the next run finds the deeds in the checkpoint and does them,
each once. Tasks and flows are handed a Session; it decides nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from flows.config.pipeline import PipelineFile
from flows.run import bootstrap
from flows.run.cost_meter import Cost
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.shutdown import Stop
from flows.run.state import Owed, Replayed, State
from models.batch.batch_model import BatchModel
from models.core import library_warnings
from models.core.library_warnings import Warned
from models.online.learner import Learner
from models.persistence import checkpoint
from models.persistence.signing import Seal
from models.prediction_log import prediction_log
from models.registry.registry import Store
from models.stream.source import Stream
from observability.core import atomic_file, failpoints, file_lock
from observability.core.decision import Decision
from observability.core.errors import ThermodriftError, TryAgainLater
from observability.core.paths import PipelinePlaces, Places
from observability.history.records import DecisionRecord, Record
from observability.history.store import History, Logged

Row = TypeVar("Row", bound=Record)


class AlreadyRunning(TryAgainLater):
    """Another process runs this pipeline."""


class Session:
    """What a run holds in its hands.

    Deliberately no dataclass: Prefect looks into dataclasses that are handed to a task, record by
    record, and must not look into this.
    """

    def __init__(
        self,
        file: PipelineFile,
        home: Path,
        stream: Stream,
        state: State,
        power: PowerSource,
        stop: Stop,
        display: Display,
        limit: int | None = None,
    ) -> None:
        self.file = file
        self.home = Places(home)
        self.places = self.home.pipeline(file.name)
        self.seal = Seal.open(self.home.key)
        self.store = Store(self.places, self.seal)
        self.history = History(home)
        self.stream = stream
        self.state = state
        self.power = power
        self.stop = stop
        self.display = display
        self.limit = limit
        self.run_id = secrets.token_hex(6)
        self.started_position = state.position
        self.totals_before = replace(state.totals)
        self.started_monotonic_s = time.monotonic()
        self.started_cpu_s = time.process_time()
        self.costs: list[Cost] = []
        """Of the heavy work that this run did."""
        self.learning_s = 0.0
        """Seconds spent in learning batches, checks and retrains apart."""
        self.refused_in_a_row = 0
        """Records on which the online model raised, since it last learned one."""
        self.history_trouble = ""
        """Why the history could not take in what was committed; it waits beside it."""
        self.history_damage: list[str] = []
        """What this run found lost or torn in the history, and what was brought back: told once."""
        self.unfinished_bytes = 0
        """Bytes at the end of the stream's file that are no whole record yet."""
        self.asides: list[Record] = []
        """Rows that came up on the way and belong to the next commit."""
        self.warned = Warned()
        """What libraries warned of in this run that was not told yet, fits apart."""
        self.warnings = 0
        """How often anything warned in this run, and was told or not."""
        self.warnings_told: set[str] = set()
        """Whose warnings were told in this run: each is told once."""
        self.logged_nowhere = 0
        """Replayed records whose file of the log is removed or damaged."""
        self.retrains_last_day: int | None = None
        """Retrains that began in the last 24 hours, where the run counts hours: see `looks`."""
        self._champion: tuple[str, BatchModel] | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._writing: Future[None] | None = None

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.file.name

    @property
    def records(self) -> int:
        """Records that this run went through."""
        return self.state.position - self.started_position

    @property
    def cpu_s(self) -> float:
        """Processor time of this process since the run began, all threads, in seconds."""
        return time.process_time() - self.started_cpu_s

    def now(self) -> datetime:
        """The time for records."""
        return datetime.now(UTC)

    def row(self, kind: type[Row], /, **fields: object) -> Row:
        """A row of history, made here and now by this run of this pipeline."""
        here = {"at": self.now(), "pipeline": self.name, "run_id": self.run_id}
        return kind.model_validate({**here, **fields})

    def decided(self, decision: Decision) -> DecisionRecord:
        """The row of a decision that was made here and now."""
        return DecisionRecord.of(
            decision,
            decided_at=self.now(),
            pipeline=self.name,
            run_id=self.run_id,
            position=self.state.position,
        )

    def told_of_warnings(self, who: str, recipe: str | None, warned: Warned) -> DecisionRecord:
        """The row that says what `who` warned of, once it was shown."""
        self.warnings += warned.count
        decision = Decision(
            question="warnings",
            yes=True,
            because=warned.because(who if recipe is None else f"{who} ({recipe})"),
            facts={"recipe": recipe, "warnings": warned.count, "first": warned.first},
        )
        self.display.happened(self.state.position, "warned", decision.because, "yellow")
        return self.decided(decision)

    def tell_warnings(self, who: str, recipe: str | None) -> None:
        """Tell what was collected since, unless `who` was told of in this run; it is counted."""
        warned, self.warned.count, self.warned.first = replace(self.warned), 0, ""
        if not warned.count:
            return
        if who in self.warnings_told:
            self.warnings += warned.count
            return
        self.warnings_told.add(who)
        self.asides.append(self.told_of_warnings(who, recipe, warned))

    def champion(self) -> BatchModel | None:
        """The champion's model, verified when it was loaded; None while there is none."""
        version = self.state.champion
        if version is None:
            return None
        if self._champion is None or self._champion[0] != version:
            self._champion = (version, self.store.load(version, self.file.folder))
        return self._champion[1]

    def commit(
        self,
        records: Sequence[Record],
        crown: str | None = None,
        log: Callable[[], object] | None = None,
        logged: tuple[int, int] | None = None,
        replayed: Replayed | None = None,
        *,
        wait: bool = True,
    ) -> None:
        """Make the state durable, then do what it owes: `crown` a version, add rows to history.

        `log` writes what must be on disk before the checkpoint that counts on it: the predictions
        of the positions `logged`, which a history elsewhere must be brought. What is `replayed` is
        put into files of the log after the checkpoint, which owes it until then. With `wait` false
        all this goes on while the next batch is learned; the next commit waits for it. What a
        kill finds unwritten is learned again from the checkpoint before it.
        """
        self.settle()
        state = self.state
        owed = Owed(
            f"{self.name}.{state.lineage}.{state.commits:08d}",
            (*self.asides, *records),
            crown,
            logged,
            replayed,
        )
        state.commits += 1
        state.owed = (owed,)
        self.asides = []
        content = checkpoint.content(state, self.seal, brief(self))
        state.owed = ()
        self._writing = self._writer.submit(self._write, content, owed, log)
        if wait:
            self.settle()

    def _write(self, content: bytes, owed: Owed, log: Callable[[], object] | None) -> None:
        if log is not None:
            log()
            failpoints.point("cycle.after_predictions")
        checkpoint.write(self.places.checkpoint, content)
        failpoints.point("cycle.after_checkpoint")
        self._do(owed)
        failpoints.point("cycle.after_history")

    def _do(self, owed: Owed) -> None:
        """What was done before is not done again: each deed has a name."""
        if owed.crown is not None:
            self.store.crown(owed.crown, owed.name)
        logged = None if owed.logged is None else Logged(self.name, *owed.logged)
        if owed.replayed is not None:
            logged = self._log_replayed(owed.replayed)
        self.history.commit(owed.records, owed.name, logged)

    def _log_replayed(self, replayed: Replayed) -> Logged:
        positions = replayed.positions
        self.logged_nowhere += prediction_log.amend(
            self.places.predictions,
            self.name,
            positions,
            replayed.log,
            self.state.schema.label_kind,
            replayed.versions,
        )
        return Logged(self.name, positions[0], positions[-1] + 1, only=positions)

    def settle(self) -> None:
        """Wait until the last commit is on disk; raises what stood in its way."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def pay(self) -> None:
        """Do what the checkpoint still owed when an earlier run was killed."""
        for owed in self.state.owed:
            self._do(owed)
        self.state.owed = ()

    def fold(self) -> None:
        """Fold what was committed into the history, while learning goes on.

        Where that cannot be now, the rows wait, durably, and the summary says why.
        """
        self.settle()
        self._writing = self._writer.submit(self._fold)

    def _fold(self) -> None:
        self.history_trouble = ""
        try:
            folded = self.history.fold()
        except (ThermodriftError, OSError) as error:
            self.history_trouble = str(error)
            return
        # The next flush knows nothing of a loss that this one has made up for.
        if folded.loss or folded.torn:
            self.history_damage.append(folded.because)
        else:
            self.history_trouble = folded.trouble

    def close(self) -> None:
        """Let the writer finish; the last commit of a run has waited for it already."""
        self._writer.shutdown(wait=True)

    def adopt_champion(self) -> None:
        """Follow the store's pointer: a person may have promoted or rolled back by hand."""
        pointed = self.store.champion()
        if pointed == self.state.champion:
            return
        before, self.state.champion = self.state.champion, pointed
        decision = Decision(
            question="champion",
            yes=True,
            because=f"the store's champion is {pointed}, changed by hand from {before}",
            facts={"champion": pointed, "before": before},
        )
        self.commit([self.decided(decision)])
        self.display.happened(self.state.position, "champion", decision.because, "cyan")

    def restore(self) -> None:
        """Go back to the checkpoint, because the learner in memory is spoilt."""
        self.settle()
        if self.places.checkpoint.exists():
            self.state = bootstrap.load(self.places, self.seal)
            # What the last commit could not do is owed by the checkpoint alone, and the next
            # commit writes another one.
            self.pay()
        else:
            # A deployed run writes its first checkpoint with its first batch.
            self.state = bootstrap.fresh(self.file, self.stream)


@contextmanager
def opened(
    file: PipelineFile,
    home: Path,
    stop: Stop,
    display: Display,
    limit: int | None = None,
    power: PowerSource | None = None,
    wait_s: float = 1.0,
) -> Iterator[Session]:
    """Open a pipeline for one run: lock it, load or begin its state, pay what an earlier run owed.

    `power` is a source that outlives this session; None: the session opens one of its own. Waits up
    to `wait_s` seconds for a run that has the pipeline. Raises AlreadyRunning, BadConfiguration,
    StreamChanged, CheckpointUnusable and what the store and the seal raise.
    """
    # Rejects hold raw data: a home that we make is its user's alone.
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    places = Places(home).pipeline(file.name)
    places.root.mkdir(parents=True, exist_ok=True)
    with locked(places, wait_s), _power(file, home, power) as power:
        state, stream = bootstrap.state_and_stream(file, places, Seal.open(Places(home).key))
        for folder in (places.root, places.reports):
            atomic_file.sweep_asides(folder)
        prediction_log.sweep(places.predictions, state.position)
        session = Session(file, home, stream, state, power, stop, display, limit)
        try:
            session.pay()
            session.asides.extend(session.decided(each) for each in power.restored)
            power.restored = []
            with library_warnings.collected(session.warned):
                yield session
        finally:
            session.close()


@contextmanager
def _power(file: PipelineFile, home: Path, given: PowerSource | None) -> Iterator[PowerSource]:
    if given is not None:
        yield given
        return
    with PowerSource.opened(file, Places(home)) as power:
        yield power


@contextmanager
def locked(places: PipelinePlaces, wait_s: float = 1.0) -> Iterator[None]:
    """Hold the pipeline: an OS lock, which dies with its process. Raises AlreadyRunning."""
    try:
        # `status` looks by taking it for a moment.
        lock = file_lock.acquire(places.lock, wait_s)
    except file_lock.LockBusy as error:
        raise AlreadyRunning(
            f"pipeline {places.name} is being run by another process, which holds {places.lock}; "
            "wait for it to end, or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def unknown_votes(state: State) -> list[dict[str, object]]:
    """What drift could not tell at the last look: vote, since, because, remedy."""
    return [{"vote": vote, **asdict(each)} for vote, each in state.unknown.items()]


def judged(learner: Learner) -> dict[str, object]:
    """How each member does by the judged metric, for people and programs."""
    return {
        "judged_by": learner.measure.name,
        "judged": {name: each.value() for name, each in learner.judged.items()},
        "judged_over": {name: each.count for name, each in learner.judged.items()},
        "threshold": learner.threshold.value if learner.threshold is not None else None,
    }


def brief(session: Session) -> dict[str, object]:
    """What `thermodrift status` reads from the checkpoint's first line, without unpickling."""
    state = session.state
    request = state.request
    return {
        "pipeline": session.name,
        "task": state.schema.task,
        "position": state.position,
        "at": session.now().isoformat(),
        "run_id": session.run_id,
        "champion": state.champion,
        "totals": vars(state.totals),
        "intake": state.intake.brief(),
        "scores": {name: tally.mean for name, tally in state.learner.tallies.items()},
        "scored": {name: tally.count for name, tally in state.learner.tallies.items()},
        **judged(state.learner),
        "unknown_votes": unknown_votes(state),
        "request": None if request is None else asdict(request),
        "reads_from": session.file.pipeline.gate.reads_from,
    }
