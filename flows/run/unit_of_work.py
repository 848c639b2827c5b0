"""The one way to move a pipeline's state forward: a commit, or back to the last one.

`UnitOfWork.commit` is the only way that a run changes what it knows. In this order: the batch's
predictions are logged; the state, and in it what it owes the world, becomes the checkpoint; then
the deeds are done (the champion's pointer, rows of history). Killed in between, the next run finds
the deeds in the checkpoint and does them, each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from flows.run import bootstrap
from flows.run.checkpoint_header import header
from flows.run.context import RunContext
from flows.run.state import PendingEffects, PipelineState, Replayed
from flows.run.statistics import RunStatistics
from models.batch import promotion
from models.batch.batch_model import BatchModel
from models.core.library_warnings import CollectedWarnings
from models.persistence import checkpoint
from models.prediction_log import prediction_log
from observability.core import failpoints
from observability.core.decision import Decision
from observability.core.errors import ThermodriftError
from observability.history.records import DecisionRecord, Record
from observability.history.store import Logged


class UnitOfWork:
    """The state of an open pipeline, and the steps by which it and its files change together.

    Deliberately no dataclass: Prefect looks into dataclasses that are handed to a task, record by
    record, and must not look into this.
    """

    def __init__(self, run: RunContext, state: PipelineState) -> None:
        self.run = run
        self.state = state
        self.statistics = RunStatistics(state.position, state.totals)
        self.history_trouble = ""
        """Why the history could not take in what was committed; it waits beside it."""
        self.history_damage: list[str] = []
        """What this run found lost or torn in the history, and what was brought back: told once."""
        self._pending_rows: list[Record] = []
        self._champion: tuple[str, BatchModel] | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._writing: Future[None] | None = None

    @property
    def records(self) -> int:
        """Records that this run went through."""
        return self.state.position - self.statistics.started_position

    @property
    def pending_rows(self) -> Sequence[Record]:
        """Rows that came up on the way and belong to the next commit."""
        return tuple(self._pending_rows)

    def add_rows(self, rows: Iterable[Record]) -> None:
        """Have the next commit take these rows, too."""
        self._pending_rows.extend(rows)

    def decision_row(self, decision: Decision) -> DecisionRecord:
        """The row of a decision that was made here and now."""
        return DecisionRecord.of(
            decision,
            decided_at=self.run.now(),
            pipeline=self.run.name,
            run_id=self.run.run_id,
            position=self.state.position,
        )

    def champion(self) -> BatchModel | None:
        """The champion's model, verified when it was loaded; None while there is none."""
        version = self.state.champion
        if version is None:
            return None
        if self._champion is None or self._champion[0] != version:
            self._champion = (version, self.run.registry.load(version, self.run.file.folder))
        return self._champion[1]

    def commit(
        self,
        records: Sequence[Record],
        promote: str | None = None,
        log: Callable[[], object] | None = None,
        logged: tuple[int, int] | None = None,
        replayed: Replayed | None = None,
        *,
        wait: bool = True,
    ) -> None:
        """Make the state durable, then do what it owes: `promote` a version, add rows to history.

        `log` writes what must be on disk before the checkpoint that counts on it: the predictions
        of the positions `logged`, which a history elsewhere must be brought. What is `replayed` is
        put into files of the log after the checkpoint, which owes it until then. With `wait` false
        all this goes on while the next batch is learned; the next commit waits for it. What a
        kill finds unwritten is learned again from the checkpoint before it.
        """
        self.wait()
        state = self.state
        owed = PendingEffects(
            f"{self.run.name}.{state.lineage}.{state.commits:08d}",
            (*self._pending_rows, *records),
            promote,
            logged,
            replayed,
        )
        state.commits += 1
        state.pending_effects = (owed,)
        self._pending_rows = []
        content = checkpoint.content(state, self.run.signing_key, header(self.run, state))
        state.pending_effects = ()
        self._writing = self._writer.submit(self._write, content, owed, log)
        if wait:
            self.wait()

    def _write(
        self, content: bytes, owed: PendingEffects, log: Callable[[], object] | None
    ) -> None:
        if log is not None:
            log()
            failpoints.point("loop.after_predictions")
        checkpoint.write(self.run.places.checkpoint, content)
        failpoints.point("loop.after_checkpoint")
        self._do(owed)
        failpoints.point("loop.after_history")

    def _do(self, owed: PendingEffects) -> None:
        """What was done before is not done again: each deed has a name."""
        if owed.promote is not None:
            self.run.registry.promote(owed.promote, owed.name)
        logged = None if owed.logged is None else Logged(self.run.name, *owed.logged)
        if owed.replayed is not None:
            logged = self._log_replayed(owed.replayed)
        self.run.history.commit(owed.records, owed.name, logged)

    def _log_replayed(self, replayed: Replayed) -> Logged:
        positions = replayed.positions
        unlogged = prediction_log.amend(
            self.run.places.predictions,
            self.run.name,
            positions,
            replayed.log,
            self.state.schema.label_kind,
            replayed.versions,
        )
        self.statistics.add_unlogged(unlogged)
        return Logged(self.run.name, positions[0], positions[-1] + 1, only=positions)

    def wait(self) -> None:
        """Wait until the last commit is on disk; raises what stood in its way."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def replay_pending(self) -> None:
        """Do what the checkpoint still owed when an earlier run was killed."""
        for owed in self.state.pending_effects:
            self._do(owed)
        self.state.pending_effects = ()

    def flush(self) -> None:
        """Move what was committed into the history, while learning goes on.

        Where that cannot be now, the rows wait, durably, and the summary says why.
        """
        self.wait()
        self._writing = self._writer.submit(self._flush)

    def _flush(self) -> None:
        self.history_trouble = ""
        try:
            folded = self.run.history.flush()
        except (ThermodriftError, OSError) as error:
            self.history_trouble = str(error)
            return
        # The next flush knows nothing of a loss that this one has made up for.
        if folded.loss or folded.torn:
            self.history_damage.append(folded.because)
        else:
            self.history_trouble = folded.trouble

    def rollback(self) -> None:
        """Go back to the checkpoint, because the learner in memory is spoilt."""
        self.wait()
        if self.run.places.checkpoint.exists():
            self.state = bootstrap.load(self.run.places, self.run.signing_key)
            # What the last commit could not do is owed by the checkpoint alone, and the next
            # commit writes another one.
            self.replay_pending()
        else:
            # A deployed run writes its first checkpoint with its first batch.
            self.state = bootstrap.fresh(self.run.file, self.run.stream)

    def close(self) -> None:
        """Let the writer finish; the last commit of a run has waited for it already."""
        self._writer.shutdown(wait=True)

    def sync_champion(self) -> None:
        """Follow the store's pointer: a person may have promoted or rolled back by hand."""
        pointed = self.run.registry.champion()
        changed = promotion.by_hand(pointed, self.state.champion)
        if not changed:
            return
        self.state.champion = pointed
        self.commit([self.decision_row(changed)])
        self.run.display.log_event(self.state.position, "champion", changed.because, "cyan")

    def report_warnings(self, who: str, recipe: str | None = None) -> None:
        """Report what was collected since, unless `who` was reported in this run."""
        warned = self.statistics.take_warnings(who)
        if warned is not None:
            self.add_rows([self.warnings_row(who, recipe, warned)])

    def warnings_row(
        self, who: str, recipe: str | None, warned: CollectedWarnings
    ) -> DecisionRecord:
        """The row that says what `who` warned of, once it was shown."""
        self.statistics.add_warnings(warned)
        decision = warned.decision(who, recipe)
        self.run.display.log_event(self.state.position, "warned", decision.because, "yellow")
        return self.decision_row(decision)
