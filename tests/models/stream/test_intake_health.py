"""The judge of the intake: when a run ends before another shape, and what answers it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.stream import intake_health
from models.stream.batches import (
    Batch,
    Cursor,
    Notice,
    NoticeKind,
    Reject,
    RejectKind,
    StreamOptions,
)
from models.stream.intake_health import FEWEST

LONGER = "4 cells were expected, 5 came"


def make_options(**changed: Any) -> StreamOptions:
    """The options of a stream, with the usual share of rejects."""
    return StreamOptions(**({"path": "d.csv", "target": "y"} | changed))


def make_batch(
    first: int,
    last: int,
    rejected: Collection[int] = (),
    reason: str = LONGER,
    kind: RejectKind = "too_many_cells",
    **changed: Any,
) -> Batch:
    """A batch of which the positions `rejected` are rejects; there is more after it."""
    fit = [place for place in range(first, last) if place not in rejected]
    fields: dict[str, Any] = {
        "first": first,
        "last": last,
        "positions": fit,
        "table": pa.table({"y": ["yes"] * len(fit)}),
        "rejects": [Reject(place, kind, reason, f"1,2,{place}") for place in sorted(rejected)],
        "after": Cursor(position=last),
        "ended": False,
    }
    return Batch(**(fields | changed))


def make_batches(shares: Sequence[float], size: int = 100) -> list[Batch]:
    """Batches in a row, of which these shares are rejected at their ends."""
    edges = pairwise(range(0, size * (len(shares) + 1), size))
    return [
        make_batch(first, last, range(last - round(share * size), last))
        for share, (first, last) in zip(shares, edges, strict=True)
    ]


def outcome(batches: Sequence[Batch], before: int = 0, **changed: Any) -> Any:
    """What the judge says of them."""
    decision = intake_health.judge(batches, before, make_options(**changed))
    assert decision.yes is (decision.facts["outcome"] == "well")
    assert decision.question == "intake"
    return decision.facts["outcome"]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.0], "well"),
        ([0.2], "well"),
        ([0.21], "ill"),
        ([1.0], "stopped"),
        ([0.5, 1.0], "stopped"),
        ([0.5, 0.0], "ill"),
        ([0.5, 0.5], "ill"),
        ([0.5, 0.5, 0.2], "ill"),
        ([0.5, 0.5, 0.21], "stopped"),
        ([0.5, 0.5, 1.0], "stopped"),
        # What comes after a sound batch is judged when it is its turn.
        ([0.1, 1.0], "well"),
    ],
)
def test_one_batch_whole_or_three_ill_ones_end_the_run(shares: list[float], expected: str) -> None:
    """More than the share is ill, and ill alone is no reason to end."""
    assert expected == outcome(make_batches(shares))


def test_with_a_share_of_one_no_shape_ends_a_run() -> None:
    """A person has said that rejects are what they want."""
    assert outcome(make_batches([1.0]), rejected_share=1) == "well"
    assert outcome([make_batch(0, 5, range(5))], 500, rejected_share=1) == "well"
    assert not intake_health.wants_another(make_batches([1.0]), make_options(rejected_share=1))


@pytest.mark.parametrize("kind", ["repeated_header", "model"])
def test_rejects_of_another_kind_count_for_nothing(kind: RejectKind) -> None:
    """A header that came again, or a record that a model refused, is no other shape."""
    batch = make_batch(0, 100, range(100), kind=kind)
    assert outcome([batch]) == "well"
    assert intake_health.in_a_row(batch, 7) == 0


@pytest.mark.parametrize(
    ("shares", "ended", "expected"),
    [
        ([0.1], False, False),
        ([0.5], False, True),
        ([0.5], True, False),
        ([1.0], False, False),
        ([0.5, 0.5], False, True),
        ([0.5, 0.1], False, False),
        ([0.5, 0.5, 0.5], False, False),
    ],
)
def test_it_looks_ahead_where_that_can_change_the_answer(
    shares: list[float], ended: bool, expected: bool
) -> None:
    """Two batches at the most, and none after the stream's end."""
    batches = make_batches(shares)
    batches[-1] = make_batch(
        batches[-1].first,
        batches[-1].last,
        [each.position for each in batches[-1].rejects],
        ended=ended,
    )
    assert expected is intake_health.wants_another(batches, make_options())


@given(st.lists(st.booleans(), max_size=120), st.lists(st.integers(1, FEWEST - 1), min_size=120))
def test_a_stream_that_trickles_ends_before_the_twentieth_in_a_row(
    misshapen: list[bool], sizes: list[int]
) -> None:
    """However the records are cut: fewer than 20 in a row are ever consumed as rejects."""
    at, before, options = 0, 0, make_options()
    for size in sizes:
        last = min(at + size, len(misshapen))
        if at == last:
            break
        batch = make_batch(at, last, [place for place in range(at, last) if misshapen[place]])
        decision = intake_health.judge([batch], before, options)
        run = 0
        longest = 0
        for place in range(max(0, at - before), last):
            run = run + 1 if misshapen[place] else 0
            longest = max(longest, run)
        assert (longest >= FEWEST) is (decision.facts["outcome"] == "stopped")
        if decision.facts["outcome"] == "stopped":
            return
        before = intake_health.in_a_row(batch, before)
        assert before == run < FEWEST
        at = last


def test_a_run_of_rejects_at_the_end_of_a_large_batch_counts_too() -> None:
    """The file has grown by a few records of the same other shape."""
    before = intake_health.in_a_row(make_batch(0, 1000, range(970, 1000)))
    assert before == 30
    assert outcome([make_batch(1000, 1003, range(1000, 1003))], before) == "stopped"
    assert outcome([make_batch(1000, 1003, [1001, 1002])], before) == "well"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=3), st.floats(0, 0.99), st.floats(0, 1))
def test_more_patience_never_ends_a_run(shares: list[float], allowed: float, more: float) -> None:
    """What a larger share ends, a smaller one does as well."""
    batches = make_batches(shares)
    patient = allowed + (1 - allowed) * more
    if outcome(batches, rejected_share=patient) == "stopped":
        assert outcome(batches, rejected_share=allowed) == "stopped"


def test_the_answer_names_the_position_the_reason_and_the_line() -> None:
    """The most frequent reason first, with the column and a value that came."""
    number = "column 'grade': a number was expected, {!r} came"
    batch = make_batch(40, 140, range(60, 140))
    rejects = [
        Reject(place, "cell", number.format("ABC"[place % 3]), "x") if place % 4 else rejected
        for place, rejected in zip(range(60, 140), batch.rejects, strict=True)
    ]
    decision = intake_health.judge(
        [make_batch(40, 140, rejects=rejects), make_batch(140, 240, range(140, 240))],
        0,
        make_options(),
    )
    facts = decision.facts
    assert (200, 180, 60) == (facts["records"], facts["rejected"], facts["first_position"])
    assert ("4 cells were expected", 120, "5") == (
        facts["reason"],
        facts["reason_count"],
        facts["example"],
    )
    assert (
        "120 x 4 cells were expected; 60 x column 'grade': a number was expected"
        == (facts["reasons"])
    )
    assert "from position 60 on" in decision.because
    assert 'extra_cells = "ignore"' in str(facts["remedy"])


@pytest.mark.parametrize(
    ("kind", "reason", "line"),
    [
        ("too_many_cells", LONGER, 'extra_cells = "ignore"'),
        ("too_few_cells", "4 cells were expected, 3 came", "a record that lacks cells"),
        ("cell", "column 'grade': a number was expected, 'A' came", 'unfit_cells = "missing"'),
        ("cell", "column 'grade': a number was expected, '1,5' came", 'decimal = ","'),
        ("cell", "column 'grade': a number was expected, '1.234,50' came", 'thousands = ","'),
        ("cell", "column 'encoding': a text was expected, 5 came", 'unfit_cells = "missing"'),
        ("out_of_range", "column 'a': a number up to 1e+15 was expected, 1e20 came", "largest = "),
        ("new_column", "column 'a,b' is not in the schema", 'ignore = ["a,b"]'),
        ("new_column", "column 'n\"m' is not in the schema", 'ignore = ["n\\"m"]'),
        ("encoding", "UTF-8 was expected, b'\\xe4' came at byte 3", 'encoding = "cp1252"'),
        ("label", "target 'y': a number was expected, 'A' came", "correct 'y' in these records"),
        ("malformed", "a JSON object was expected, broken JSON came", "correct these records"),
        ("model", "the online model raised ValueError", "correct these records"),
        (None, "something that nobody foresaw", "correct these records"),
    ],
)
def test_each_kind_has_its_line(kind: RejectKind, reason: str, line: str) -> None:
    """Which key of [stream] answers it; where none does, that is what is said."""
    (found,) = intake_health.reasons([Reject(0, kind, reason, "raw")])
    assert line in intake_health.remedy(found, "y")


def test_a_new_column_ends_the_run_where_that_was_asked_for() -> None:
    """Before the batch that shows it, and at no other time."""
    notice = Notice("new column", "extra", 130, 70, "5.5")
    batch = make_batch(100, 200, notices=(Notice("unfit cell", "a", 100, 1, "x"), notice))
    assert outcome([batch]) == "well"
    decision = intake_health.judge([batch], 0, make_options(new_columns="stop"))
    assert ("stopped", 130, "extra") == (
        decision.facts["outcome"],
        decision.facts["first_position"],
        decision.facts["column"],
    )
    assert "'5.5'" in decision.because
    assert outcome([make_batch(0, 100)], new_columns="stop") == "well"


@pytest.mark.parametrize("kind", ["new column", "unfit cell", "leading zeros", "empty column"])
def test_what_is_unusual_and_costs_no_record_is_told_with_its_place(kind: NoticeKind) -> None:
    """Once, with the column and an example."""
    decision = intake_health.noticed(Notice(kind, "price", 7, 3, "'x'"))
    assert (True, "intake", "noticed") == (
        decision.yes,
        decision.question,
        decision.facts["outcome"],
    )
    assert decision.because.startswith("from position 7 on, column 'price' ")
    assert (kind, 3) == (decision.facts["notice"], decision.facts["records"])


@pytest.mark.parametrize(
    ("records", "misshapen", "ill"), [(19, 19, False), (20, 2, False), (20, 3, True)]
)
def test_a_share_of_few_records_is_never_ill(records: int, misshapen: int, ill: bool) -> None:
    """And one at the bound is not ill either."""
    options = make_options(rejected_share=0.1)
    assert ill is intake_health.is_ill_share(records, misshapen, options)
