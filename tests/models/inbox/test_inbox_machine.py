"""The inbox does what a few dicts would do, in any order of calls."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from models.inbox.errors import PositionsForgotten, RecordConflict
from models.inbox.inbox import Answered, open_reader
from tests.models.inbox.makers import FILE, make_answered, new

IDS = st.sampled_from("abcdefgh")
MOMENTS = st.integers(0, 40).map(float)
PREDICTIONS = st.builds(make_answered, IDS, MOMENTS, x=st.integers(0, 1))
LABELS = st.sampled_from([0, 1, "1"])


class PlainInbox:
    """The same rules over dicts and lists, with nothing of SQL, groups or files."""

    def __init__(self, most_waiting: int, longest_wait_s: float, most_remembered: int) -> None:
        self.most_waiting = most_waiting
        self.longest_wait_s = longest_wait_s
        self.most_remembered = most_remembered
        self.waiting: dict[str, Answered] = {}
        self.joined: list[tuple[Answered, float, int | str]] = []
        self.forgotten = 0
        self.ended: dict[str, tuple[Answered, int | None, int | str | None]] = {}
        self.expired = 0

    def known(self, id_: str) -> Answered | None:
        past = [given for given, _, _ in self.joined[self.forgotten :] if given.id == id_]
        ended = [self.ended[id_][0]] if id_ in self.ended else []
        waiting = [self.waiting[id_]] if id_ in self.waiting else []
        return next(iter([*past, *ended, *waiting]), None)

    def record(self, given: list[Answered]) -> str | None:
        new: dict[str, Answered] = {}
        for each in given:
            known = new.get(each.id) or self.known(each.id)
            if known is not None and known != each:
                return each.id
            if known is None:
                new[each.id] = each
        self.waiting |= new
        self.expire(max(each.predicted_at for each in given))
        while len(self.waiting) > self.most_waiting:
            self._expire(min(self.waiting.values(), key=lambda each: each.predicted_at))
        return None

    def expire(self, at: float) -> int:
        late = [
            each for each in self.waiting.values() if each.predicted_at < at - self.longest_wait_s
        ]
        for each in sorted(late, key=lambda each: each.predicted_at):
            self._expire(each)
        return len(late)

    def label(self, id_: str, label: int | str, at: float) -> tuple[str, int | None]:
        if id_ in self.waiting:
            self.joined.append((self.waiting.pop(id_), at, label))
            return "joined", len(self.joined) - 1
        before = {
            given.id: (position, other)
            for position, (given, _, other) in enumerate(self.joined)
            if position >= self.forgotten
        } | {each: ended[1:] for each, ended in self.ended.items()}
        if id_ not in before:
            return "unknown", None
        position, other = before[id_]
        if other is None:
            return "expired", None
        return ("duplicate" if other == label else "conflicting"), position

    def forget(self, before: int) -> int:
        last = max(min(before, len(self.joined)), self.forgotten)
        for position in range(self.forgotten, last):
            given, _, label = self.joined[position]
            self._end(given, position, label)
        dropped, self.forgotten = last - self.forgotten, last
        return dropped

    def _expire(self, given: Answered) -> None:
        del self.waiting[given.id]
        self.expired += 1
        self._end(given, None, None)

    def _end(self, given: Answered, position: int | None, label: int | str | None) -> None:
        self.ended[given.id] = (given, position, label)
        while len(self.ended) > self.most_remembered:
            del self.ended[next(iter(self.ended))]


class InboxMachine(RuleBasedStateMachine):
    """Both in step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()

    @initialize(
        most_waiting=st.integers(1, 6),
        longest_wait_s=st.integers(1, 30).map(float),
        most_remembered=st.integers(0, 5),
    )
    def begin(self, most_waiting: int, longest_wait_s: float, most_remembered: int) -> None:
        self.bounds = {
            "most_waiting": most_waiting,
            "longest_wait_s": longest_wait_s,
            "most_remembered": most_remembered,
        }
        self.plain = PlainInbox(most_waiting, longest_wait_s, most_remembered)
        self.inbox = new(Path(self.folder.name), **self.bounds)
        self.reader = open_reader(Path(self.folder.name) / FILE)

    @rule(given=st.lists(PREDICTIONS, min_size=1, max_size=4))
    def record(self, given: list[Answered]) -> None:
        refused = self.plain.record(given)
        if refused is None:
            self.inbox.record(given)
        else:
            with pytest.raises(RecordConflict) as error:
                self.inbox.record(given)
            assert refused == error.value.id

    @rule(truths=st.lists(st.tuples(IDS, LABELS), min_size=1, max_size=4), at=MOMENTS)
    def label(self, truths: list[tuple[str, int | str]], at: float) -> None:
        self.plain.expire(at)
        expected = [(id_, *self.plain.label(id_, label, at)) for id_, label in truths]
        assert expected == self.inbox.label(truths, at)

    @rule(at=MOMENTS)
    def expire(self, at: float) -> None:
        assert self.plain.expire(at) == self.inbox.expire(at)

    @rule(before=st.integers(0, 6))
    def forget(self, before: int) -> None:
        assert self.plain.forget(before) == self.inbox.forget(before)

    @rule()
    def reopen(self) -> None:
        self.inbox.close()
        self.inbox = new(Path(self.folder.name), **self.bounds)

    @invariant()
    def both_say_the_same(self) -> None:
        for inbox in (self.inbox, self.reader):
            counts = inbox.counts()
            assert len(self.plain.waiting) == counts.waiting
            assert len(self.plain.joined) == counts.joined
            assert self.plain.forgotten == counts.first_position
            assert self.plain.expired == counts.expired
            assert len(self.plain.ended) == counts.remembered

    @invariant()
    def joined_examples_stay_as_they_are(self) -> None:
        expected = [
            (position, given.id, given.predicted_at, at, label, *given[2:])
            for position, (given, at, label) in enumerate(self.plain.joined)
        ]
        first = self.plain.forgotten
        assert repr(expected[first:]) == repr([tuple(e) for e in self.reader.joined(first, 999)])
        if first:
            with pytest.raises(PositionsForgotten):
                self.reader.joined(first - 1, 1)

    @invariant()
    def latency_counts_what_is_known(self) -> None:
        found = self.inbox.latency()
        made_after = -1.0 if found.made_after is None else found.made_after
        counted = [each for each in self._all_known() if each.predicted_at > made_after]
        assert len(counted) == found.predictions
        oldest = min((each.predicted_at for each in self.plain.waiting.values()), default=None)
        assert (len(self.plain.waiting), oldest) == (found.waiting, found.waiting_since)

    def _all_known(self) -> list[Answered]:
        return [
            *self.plain.waiting.values(),
            *(given for given, _, _ in self.plain.joined[self.plain.forgotten :]),
            *(given for given, _, _ in self.plain.ended.values()),
        ]

    def teardown(self) -> None:
        if hasattr(self, "inbox"):
            self.reader.close()
            self.inbox.close()
        self.folder.cleanup()


# It takes some seconds, as long as all others of this folder together.
TestInbox = pytest.mark.slow(InboxMachine.TestCase)
TestInbox.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class BriefMachine(InboxMachine):
    """The same, for the tests that answer at once."""


TestInboxBriefly = BriefMachine.TestCase
TestInboxBriefly.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
