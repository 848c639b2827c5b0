"""Does the stream still have the shape that it began with? Batches in, a Decision out.

Nothing here touches the disk. A reject counts where its record has another shape
(`Reject.is_misshapen`). A batch is ill where more than `[stream] rejected_share` of it does. A run
ends before an ill batch where one of three in a row is rejected whole, or all three are ill; where
a stream trickles, before the batch in which the 20th record in a row is rejected; and before a new
column where `new_columns` says stop. What was not consumed is not lost: the run after a correction
goes on there.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from models.stream.batches import Batch, Notice, Reject, RejectKind, StreamOptions
from observability.core.decision import Decision, Fact

FEWEST = 20
"""Records from which a batch counts as a whole, and rejects in a row that end a run of less."""
AHEAD = 3
"""Batches that are looked at where the first of them is ill."""
_MOST_REASONS = 3
_LONGEST_EXAMPLE = 60

_CAME = re.compile(r"(?P<what>.*?(?:was|were) expected), (?P<came>.*) came\b.*", re.DOTALL)
_SEPARATED = re.compile(r"""(['"]).*\d[.,' ]\d.*\1""")
"""A text with a mark between two digits."""
_COLUMN = re.compile(r"""\bcolumn (?P<name>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


@dataclass(frozen=True)
class Reason:
    """Why records were rejected, without the value that came; and how often."""

    kind: RejectKind | None
    what: str
    count: int
    example: str
    """A value that came, or else the beginning of a record."""
    column: str | None
    """The column that it names."""


def is_ill(batch: Batch, options: StreamOptions) -> bool:
    """Whether more of a batch has another shape than is usual; one of a few records never is."""
    return is_ill_share(batch.last - batch.first, len(_misshapen(batch)), options)


def is_ill_share(records: int, misshapen: int, options: StreamOptions) -> bool:
    """The same, of so many records of which so many have another shape."""
    return records >= FEWEST and misshapen > options.rejected_share * records


def wants_another(batches: Sequence[Batch], options: StreamOptions) -> bool:
    """Whether the judge has to see the batch after `batches` before it can answer."""
    return (
        options.rejected_share < 1
        and len(batches) < AHEAD
        and not batches[-1].ended
        and all(is_ill(each, options) for each in batches)
        and not any(map(_is_whole, batches))
    )


def in_a_row(batch: Batch, before: int = 0) -> int:
    """Records that are rejected for their shape without a break at the end of `batch`.

    `before`: so many there were right before it.
    """
    misshapen = {each.position for each in _misshapen(batch)}
    places = range(batch.last - 1, batch.first - 1, -1)
    run = sum(1 for _ in takewhile(misshapen.__contains__, places))
    return run + before if run == batch.last - batch.first else run


def judge(batches: Sequence[Batch], before: int, options: StreamOptions) -> Decision:
    """May the first of `batches` be consumed, and is it well? ``facts["outcome"]`` tells.

    `batches` are the next one and, as `wants_another` says, up to two that follow it; `before` are
    the records right before them that were rejected in a row. ``well`` is a yes. ``ill`` is a no
    that costs nothing but a word: the batch is consumed, its misshapen records as rejects.
    ``stopped`` is a no that ends the run before the batch.
    """
    column = next(iter(new_columns(batches[0])), None)
    if column is not None and options.new_columns == "stop":
        return _stopped_at_column(batches[0], column)
    if options.rejected_share < 1:
        if _has_too_many_in_a_row(batches[0], before):
            return _stopped(batches[:1], before, options)
        ill = [is_ill(each, options) for each in batches]
        if ill[0] and (any(map(_is_whole, batches)) or (len(ill) >= AHEAD and all(ill))):
            return _stopped(batches, before, options)
    if is_ill(batches[0], options):
        return _ill(batches[0], options)
    return _well(batches[0])


def describe(batch: Batch, options: StreamOptions) -> Decision | None:
    """What is said of a batch that was consumed though it is ill; None of any other."""
    return _ill(batch, options) if is_ill(batch, options) else None


def new_columns(batch: Batch) -> list[Notice]:
    """The columns that a batch has, and the stream did not begin with."""
    return [each for each in batch.notices if each.kind == "new column"]


def reasons(rejects: Sequence[Reject]) -> list[Reason]:
    """Why, the most frequent first; of equals that which came first."""
    found = [(each.kind, *_told(each)) for each in rejects]
    counts = Counter((kind, what) for kind, what, _ in found)
    examples = {(kind, what): example for kind, what, example in reversed(found)}
    return [
        Reason(kind, what, count, examples[kind, what], _column(what))
        for (kind, what), count in counts.most_common()
    ]


def remedy(reason: Reason, target: str) -> str:
    """Which line of the pipeline file answers a reason, or that none does; no sentence's end."""
    missing = '[stream] unfit_cells = "missing" takes such cells as missing'
    match reason.kind:
        case "too_many_cells":
            return '[stream] extra_cells = "ignore" leaves out the cells after the last named one'
        case "too_few_cells":
            return "no line of [stream] reads a record that lacks cells: correct these records"
        case "new_column":
            named = json.dumps(reason.column or "NAME", ensure_ascii=False)
            return f'[stream] new_columns = "ignore" or ignore = [{named}] leaves it out'
        case "encoding":
            return (
                '[stream] encoding = "cp1252" (or how else the file was written) reads such bytes'
            )
        case "label":
            return (
                f"no line of [stream] reads such a label: correct {target!r} in these records of "
                "the stream"
            )
        case "out_of_range":
            return f"[stream] largest = 1e150 lets larger numbers in, and {missing}"
        case "cell" if _SEPARATED.fullmatch(reason.example):
            return (
                '[stream] decimal = "," or thousands = "," (as the numbers are written) reads '
                f"them, and {missing}"
            )
        case "cell":
            return missing
        case _:
            return "no line of [stream] reads them: correct these records in the stream"


def _misshapen(batch: Batch) -> list[Reject]:
    return [each for each in batch.rejects if each.is_misshapen]


def _is_whole(batch: Batch) -> bool:
    records = batch.last - batch.first
    return records >= FEWEST and len(_misshapen(batch)) == records


def _has_too_many_in_a_row(batch: Batch, before: int) -> bool:
    """Of a batch that is too small for a share: whether the run before it reaches the bound in it.

    The record with which it does must be left alone, and so the batch that has it.
    """
    if batch.last - batch.first >= FEWEST:
        return False
    misshapen = {each.position for each in _misshapen(batch)}
    places = range(batch.first, batch.last)
    leading = sum(1 for _ in takewhile(misshapen.__contains__, places))
    return leading > 0 and before + leading >= FEWEST


def _told(reject: Reject) -> tuple[str, str]:
    """What is wrong, without the value, and the value: both are short."""
    found = _CAME.fullmatch(reject.reason)
    if found is None:
        return reject.reason, reject.raw[:_LONGEST_EXAMPLE]
    return found["what"], found["came"][:_LONGEST_EXAMPLE]


def _column(what: str) -> str | None:
    found = _COLUMN.search(what)
    return None if found is None else str(ast.literal_eval(found["name"]))


def noticed(notice: Notice) -> Decision:
    """What is told, once, of something unusual that costs no record."""
    what = {
        "new column": "is new and is left out",
        "unfit cell": "has a cell that does not fit and is taken as missing",
        "leading zeros": "is read as numbers and has digits with a leading zero",
        "empty column": "has no value any more, though it had some when the stream began",
    }[notice.kind]
    return Decision(
        question="intake",
        yes=True,
        because=f"from position {notice.position} on, column {notice.column!r} {what} "
        f"(such as {notice.example}); this is told once",
        facts={
            "outcome": "noticed",
            "notice": notice.kind,
            "column": notice.column,
            "first_position": notice.position,
            "records": notice.count,
            "example": notice.example,
        },
    )


def _well(batch: Batch) -> Decision:
    records, rejected = batch.last - batch.first, len(_misshapen(batch))
    return Decision(
        question="intake",
        yes=True,
        because=f"{rejected} of {records} records have another shape",
        facts={"outcome": "well", "records": records, "rejected": rejected},
    )


def _ill(batch: Batch, options: StreamOptions) -> Decision:
    misshapen = _misshapen(batch)
    records, first = batch.last - batch.first, reasons(misshapen)[0]
    return Decision(
        question="intake",
        yes=False,
        because=f"{len(misshapen)} of {records} records were rejected for their shape "
        f"({options.rejected_share:.0%} is usual at most), most often because: {_said(first)}",
        facts=_facts("ill", [batch], options),
    )


def _stopped(batches: Sequence[Batch], before: int, options: StreamOptions) -> Decision:
    misshapen = [each for batch in batches for each in _misshapen(batch)]
    records = batches[-1].last - batches[0].first
    most, *others = reasons(misshapen)[:_MOST_REASONS]
    also = "".join(f"; {_said(each)}" for each in others)
    after = f", after {before} such records in a row" if before and records < FEWEST else ""
    return Decision(
        question="intake",
        yes=False,
        because=f"the stream has another shape from position {misshapen[0].position} on: "
        f"{len(misshapen)} of the {records} records from position {batches[0].first} do not "
        f"fit{after}: {_said(most)}{also}",
        facts={**_facts("stopped", batches, options), "in_a_row_before": before},
    )


def _stopped_at_column(batch: Batch, column: Notice) -> Decision:
    name = json.dumps(column.column, ensure_ascii=False)
    return Decision(
        question="intake",
        yes=False,
        because=f"the stream has a new column {column.column!r} (such as {column.example!r}) from "
        f"position {column.position} on, and [stream] new_columns is 'stop'",
        facts={
            "outcome": "stopped",
            "records": batch.last - batch.first,
            "rejected": len(_misshapen(batch)),
            "first_position": column.position,
            "column": column.column,
            "example": column.example,
            "remedy": f'[stream] new_columns = "ignore" or ignore = [{name}] leaves it out, and '
            'new_columns = "reject" takes its records as rejects',
        },
    )


def _said(reason: Reason) -> str:
    times = "once" if reason.count == 1 else f"{reason.count} times"
    return f"{reason.what} ({times}, such as {reason.example})"


def _facts(outcome: str, batches: Sequence[Batch], options: StreamOptions) -> dict[str, Fact]:
    misshapen = [each for batch in batches for each in _misshapen(batch)]
    found = reasons(misshapen)
    return {
        "outcome": outcome,
        "records": batches[-1].last - batches[0].first,
        "rejected": len(misshapen),
        "rejected_share": options.rejected_share,
        "batches": len(batches),
        "first_position": misshapen[0].position,
        "reason": found[0].what,
        "reason_count": found[0].count,
        "reasons": "; ".join(f"{each.count} x {each.what}" for each in found[:_MOST_REASONS]),
        "example": found[0].example,
        "column": found[0].column,
        "remedy": remedy(found[0], options.target),
    }
