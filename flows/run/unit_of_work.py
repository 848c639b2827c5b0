"""The unit of work: the only way to change a pipeline's state is a commit or a rollback.

A commit has this order: the batch's predictions are logged; the state, with its pending effects,
becomes the checkpoint; then the effects are applied (the champion's pointer, rows of the history).
After a kill in between, the next run finds the effects in the checkpoint and applies them, each
once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from flows.metrics import export
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

MOST_MODELS = 6
"""Loaded versions that are kept: a look compares the champion with a few older ones."""


class UnitOfWork:
    """The state of an open pipeline, and the steps by which it and its files change together.

    This is deliberately no dataclass: Prefect visits the fields of dataclasses that are given to a
    task, record by record, and must not visit these.
    """

    def __init__(self, run: RunContext, state: PipelineState) -> None:
        self.run = run
        self.state = state
        self.statistics = RunStatistics(state.position, state.totals)
        self.history_trouble = ""
        """Why the history could not take in what was committed; the rows wait in the outbox."""
        self.history_damage: list[str] = []
        """What this run found lost or corrupt in the history, and what was recovered."""
        self.metrics_trouble = ""
        """Why the figures could not be handed on where the home's file wants them."""
        self._pending_rows: list[Record] = []
        self._models: OrderedDict[str, BatchModel] = OrderedDict()
        """Versions that were loaded last, the newest at the end."""
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._writing: Future[None] | None = None

    @property
    def records(self) -> int:
        """Records that this run has read."""
        return self.state.position - self.statistics.started_position

    @property
    def pending_rows(self) -> Sequence[Record]:
        """Rows that belong to the next commit."""
        return tuple(self._pending_rows)

    def add_rows(self, rows: Iterable[Record]) -> None:
        """Add these rows to the next commit."""
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
        return None if self.state.champion is None else self.model(self.state.champion)

    def model(self, version: str) -> BatchModel:
        """A stored version, verified when it was loaded; the `MOST_MODELS` used last stay loaded.

        Raises what `Registry.load` raises.
        """
        if version not in self._models:
            self._models[version] = self.run.registry.load(version, self.run.file.folder)
        self._models.move_to_end(version)
        while len(self._models) > MOST_MODELS:
            self._models.popitem(last=False)
        return self._models[version]

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
        """Make the state durable, then apply its effects: `promote` a version, add rows to history.

        `log` writes what must be on disk before the checkpoint: the predictions of the positions
        `logged`, which a history elsewhere must ingest. What is `replayed` is put into files of the
        log after the checkpoint, as a pending effect. With `wait` false all this goes on while the
        next batch is learned; the next commit waits for it. What is not written at a kill is
        learned again from the checkpoint before it.
        """
        self.wait()
        state = self.state
        effects = PendingEffects(
            f"{self.run.name}.{state.lineage}.{state.commits:08d}",
            (*self._pending_rows, *records),
            promote,
            logged,
            replayed,
        )
        state.commits += 1
        state.pending_effects = (effects,)
        self._pending_rows = []
        content = checkpoint.content(state, self.run.signing_key, header(self.run, state))
        state.pending_effects = ()
        self._writing = self._writer.submit(self._write, content, effects, log)
        if wait:
            self.wait()

    def _write(
        self, content: bytes, effects: PendingEffects, log: Callable[[], object] | None
    ) -> None:
        if log is not None:
            log()
            failpoints.point("loop.after_predictions")
        checkpoint.write(self.run.places.checkpoint, content)
        failpoints.point("loop.after_checkpoint")
        self._apply(effects)
        failpoints.point("loop.after_history")

    def _apply(self, effects: PendingEffects) -> None:
        """Apply the effects; what was applied before changes nothing, since each has a name."""
        if effects.promote is not None:
            self.run.registry.promote(effects.promote, effects.name)
        logged = None if effects.logged is None else Logged(self.run.name, *effects.logged)
        if effects.replayed is not None:
            replayed = effects.replayed
            positions = replayed.positions
            self.statistics.logged_nowhere += prediction_log.amend(
                self.run.places.predictions,
                self.run.name,
                positions,
                replayed.log,
                self.state.schema.label_kind,
                replayed.versions,
            )
            logged = Logged(self.run.name, positions[0], positions[-1] + 1, only=positions)
        self.run.history.commit(effects.records, effects.name, logged)

    def wait(self) -> None:
        """Wait until the last commit is on disk; raises its error."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def replay_pending(self) -> None:
        """Apply the effects that were pending when an earlier run was killed."""
        for effects in self.state.pending_effects:
            self._apply(effects)
        self.state.pending_effects = ()

    def flush(self) -> None:
        """Move what was committed into the history, while learning goes on.

        Where that is not possible now, the rows wait in the outbox, and the summary says why.
        """
        self.wait()
        self._writing = self._writer.submit(self._flush)

    def export_metrics(self, *, ends: bool) -> None:
        """Hand the figures on, where the home's file asks for that; it fails nothing."""
        self.metrics_trouble = export.export(self.run.home, ends=ends)

    def _flush(self) -> None:
        self._flush_history()
        self.export_metrics(ends=False)

    def _flush_history(self) -> None:
        self.history_trouble = ""
        try:
            result = self.run.history.flush()
        except (ThermodriftError, OSError) as error:
            self.history_trouble = str(error)
            return
        # The next flush does not report a loss that this one has recovered from.
        if result.loss or result.corrupt:
            self.history_damage.append(result.because)
        else:
            self.history_trouble = result.trouble

    def rollback(self) -> None:
        """Go back to the checkpoint, because the learner in memory is only half changed."""
        self.wait()
        if self.run.places.checkpoint.exists():
            self.state = bootstrap.load(self.run.places, self.run.signing_key)
            # Effects that the last commit could not apply are in the checkpoint alone, and the next
            # commit replaces it.
            self.replay_pending()
        else:
            # A deployed run writes its first checkpoint with its first batch.
            self.state = bootstrap.fresh(self.run.file, self.run.stream)

    def close(self) -> None:
        """Let the writer finish; the last commit of a run has waited for it already."""
        self._writer.shutdown(wait=True)

    def sync_champion(self) -> None:
        """Follow the registry's pointer: a user may have promoted or rolled back by command."""
        pointed = self.run.registry.champion()
        changed = promotion.by_hand(pointed, self.state.champion)
        if not changed:
            return
        self.state.worth = self.state.worth.by_hand(pointed, self.state.champion)
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
        """The row that says what `who` warned of; shows it as well."""
        self.statistics.reported_warnings += warned.count
        decision = warned.decision(who, recipe)
        self.run.display.log_event(self.state.position, "warned", decision.because, "yellow")
        return self.decision_row(decision)
