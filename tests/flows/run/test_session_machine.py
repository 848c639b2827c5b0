"""`UnitOfWork.commit` under any order of events and any cut, against what must never happen.

Real files and a real DuckDB. A cut is a fault point that raises where a kill would end the process:
what is on disk by then is the same, and the work is thrown away.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from flows.config import pipeline
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from flows.run.unit_of_work import UnitOfWork
from observability.core import failpoints
from observability.core.decision import Decision
from observability.history.records import Record
from observability.history.store import History
from tests.flows.makers import NAME, ask, make_pipeline
from tests.models import makers

VERSIONS = ("v1", "v2", "v3")
CUTS = (
    *(
        (f"atomic_file.{place}", after)
        for place in ("before_rename", "after_rename")
        for after in (1, 2)
    ),
    ("atomic_file.after_rename", 3),
    ("loop.after_predictions", 1),
    ("loop.after_checkpoint", 1),
    ("registry.before_promotion", 1),
    ("history.before_outbox", 1),
    ("loop.after_history", 1),
)
"""Where the process of a commit is cut, and at which passing of that place."""

FOLD_CUTS = ("history.before_flush", "history.inside_flush", "history.after_flush")

versions = st.none() | st.sampled_from(VERSIONS)
counts = st.integers(0, 3)


def begin_home(folder: Path) -> None:
    """A pipeline that has learned nothing, with models that can be crowned."""
    path = make_pipeline(folder, 20)
    with opened(pipeline.read(path), folder / "home", Stop(), Display("test")) as work:
        for version in VERSIONS:
            makers.put(work.run.registry, version, pipeline=NAME)


class Deed(NamedTuple):
    """One commit, before it is made."""

    records: list[Record]
    names: list[str]
    """Of its own rows, and of those that came up before it."""
    crown: str | None
    log: Path | None


class SessionMachine(RuleBasedStateMachine):
    """A pipeline whose runs hand over rows, crown champions, are cut and begin again."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.rows = 0
        self.asides: list[str] = []
        """Rows that wait for a commit."""
        self.kept: set[str] = set()
        """Rows that are in a commit which is on disk, for all that the pipeline was told."""
        self.logs: list[Path] = []
        """All that commits were to write."""
        self.logged: set[Path] = set()
        """Those of the commits in `kept`, which the totals of the checkpoint count one by one."""
        self.champion: str | None = None
        self.names: dict[str, list[str]] = {}
        self.stack.enter_context(
            mock.patch.object(History, "commit", self._watched(History.commit))
        )

    def _watched(self, commit: Callable[..., None]) -> Callable[..., None]:
        """The history's commit; a name that comes again must mean the same rows."""

        def watched(
            history: History, records: Sequence[Record], name: str, *more: Any, **named: Any
        ) -> None:
            told = [each.model_dump_json() for each in records]
            assert self.names.setdefault(name, told) == told, f"{name} is used for other rows"
            commit(history, records, name, *more, **named)

        return watched

    @initialize()
    def begin(self) -> None:
        """A copy of the same home, opened."""
        shutil.copytree(self.template, self.folder, dirs_exist_ok=True)
        self._open()

    def _open(self) -> None:
        self.run = ExitStack()
        file = pipeline.read(self.folder / "pipeline.toml")
        self.work: UnitOfWork = self.run.enter_context(
            opened(file, self.folder / "home", Stop(), Display("test"))
        )

    def _drop(self) -> None:
        """End the process: what no commit has taken is gone."""
        self.run.close()
        self.asides = []

    def _row(self) -> tuple[str, Record]:
        self.rows += 1
        name = f"row {self.rows}"
        return name, self.work.decision_row(Decision(question="test", yes=True, because=name))

    def _prepared(self, count: int, crown: str | None, with_log: bool) -> Deed:
        """A commit of so many rows, with what waits, that is yet to be made."""
        made = [self._row() for _ in range(count)]
        names = [*self.asides, *(name for name, _ in made)]
        log = self.folder / f"log-{len(self.logs)}" if with_log else None
        self.logs.extend([] if log is None else [log])
        return Deed([record for _, record in made], names, crown, log)

    def _commit(self, deed: Deed, wait: bool) -> None:
        """As the flows do: the state is changed first."""
        self.asides = []
        if deed.crown is not None:
            self.work.state.champion = deed.crown
        self.work.state.totals.records += deed.log is not None
        log = None if deed.log is None else deed.log.touch
        self.work.commit(deed.records, deed.crown, log, wait=wait)

    def _taken(self, deed: Deed) -> None:
        """What the pipeline knows from now on."""
        self.kept.update(deed.names)
        self.logged.update([] if deed.log is None else [deed.log])
        self.champion = deed.crown or self.champion

    @rule()
    def something_comes_up(self) -> None:
        """A row that belongs to the next commit."""
        name, record = self._row()
        self.work.add_rows([record])
        self.asides.append(name)

    @rule(count=counts, crown=versions, with_log=st.booleans(), wait=st.booleans())
    def it_commits(self, count: int, crown: str | None, with_log: bool, wait: bool) -> None:
        """A batch, a look or a retrain is made durable; the next step may come before it is."""
        deed = self._prepared(count, crown, with_log)
        self._commit(deed, wait)
        self._taken(deed)

    @rule(
        count=counts,
        crown=versions,
        with_log=st.booleans(),
        wait=st.booleans(),
        cut=st.sampled_from(CUTS),
        again=st.booleans(),
    )
    def it_is_cut_amid_a_commit(
        self,
        count: int,
        crown: str | None,
        with_log: bool,
        wait: bool,
        cut: tuple[str, int],
        again: bool,
    ) -> None:
        """All of a commit is known to the next run, or nothing of it: the checkpoint tells which.

        `again`: no new process comes, and the run goes back to its checkpoint.
        """
        self.work.wait()
        commits = self.work.state.commits
        deed = self._prepared(count, crown, with_log)
        failpoints.arm(cut[0], "raise", cut[1])
        try:
            with suppress(OSError):
                self._commit(deed, wait)
                self.work.wait()
        finally:
            failpoints.disarm()
        if again and self.work.run.places.checkpoint.exists():
            self.work.rollback()
        else:
            self._drop()
            self._open()
        if self.work.state.commits > commits:
            self._taken(deed)
        self.all_of_it_is_there_once()

    @rule(version=st.sampled_from(VERSIONS))
    def a_person_promotes(self, version: str) -> None:
        """By hand, and the run follows: with a commit of its own, if that is news."""
        self.work.wait()
        self.work.run.registry.promote(version, f"by hand {len(self.names)} {self.rows}")
        self.rows += 1
        follows = self.work.state.champion != version
        self.work.sync_champion()
        self.champion = version
        if follows:
            self.kept.update(self.asides)
            self.asides = []

    @rule()
    def it_goes_back(self) -> None:
        """A learner that was spoilt is put back; what came up on the way is still to be told."""
        self.work.wait()
        if self.work.state.commits:
            self.work.rollback()

    @rule()
    def it_pays_again(self) -> None:
        """What is owed is done twice, which is once."""
        self.work.replay_pending()

    @rule(cut=st.none() | st.sampled_from(FOLD_CUTS))
    def it_folds(self, cut: str | None) -> None:
        """Rows go into the history meanwhile, or are cut on their way and wait."""
        if cut is not None:
            self.work.wait()
            failpoints.arm(cut, "raise")
        try:
            self.work.flush()
            self.work.wait()
        finally:
            failpoints.disarm()

    @rule()
    def another_run_comes(self) -> None:
        """The process ends, and what no commit had taken is gone with it."""
        self._drop()
        self._open()

    @rule()
    def all_of_it_is_there_once(self) -> None:
        """What was kept is in the history once, nothing else is, and the state agrees."""
        self.work.wait()
        found = ask(
            self.folder / "home",
            "SELECT because, count(*) AS times FROM decisions WHERE question = 'test' GROUP BY ALL",
        )
        assert dict.fromkeys(self.kept, 1) == {row["because"]: row["times"] for row in found}
        assert self.champion == self.work.run.registry.champion() == self.work.state.champion
        assert len(self.logged) == self.work.state.totals.records
        assert [] == [log.name for log in self.logged if not log.exists()]

    def teardown(self) -> None:
        """The last process ends, and the next one still finds everything."""
        try:
            if hasattr(self, "run"):
                self._drop()
                self._open()
                self.all_of_it_is_there_once()
        finally:
            failpoints.disarm()
            if hasattr(self, "run"):
                self.run.close()
            self.stack.close()


def test_whatever_comes_between_commits_each_is_done_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Asides, commits, crowns, cuts, folds, persons and new runs, in any order."""
    SessionMachine.template = tmp_path_factory.mktemp("template")
    begin_home(SessionMachine.template)
    run_state_machine_as_test(
        SessionMachine,
        settings=settings(
            max_examples=8,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
