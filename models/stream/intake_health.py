"""Policy: does the stream still have the shape that it began with? Batches in, a Decision out.

Nothing here touches the disk. A reject counts if its record has another shape
(`Reject.is_misshapen`). A batch is ill if the share of such rejects is above `[stream]
rejected_share`. A run ends before an ill batch if one of three consecutive batches is rejected as a
whole, or if all three are ill; in a slow stream, before the batch with the 20th consecutive reject;
and before a new column if `new_columns` is "stop". No record is lost: after a correction, the next
run continues there.
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
"""Fewest records of a batch for a share; and consecutive rejects that end a run below that."""
AHEAD = 3
"""Batches that are judged together if the first of them is ill."""
_MOST_REASONS = 3
_LONGEST_EXAMPLE = 60

_CAME = re.compile(r"(?P<what>.*?(?:was|were) expected), (?P<came>.*) came\b.*", re.DOTALL)
_SEPARATED = re.compile(r"""(['"]).*\d[.,' ]\d.*\1""")
"""A text with a separator between two digits."""
_COLUMN = re.compile(r"""\bcolumn (?P<name>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


@dataclass(frozen=True)
class Reason:
    """Why records were rejected, without the value; and how often."""

    kind: RejectKind | None
    what: str
    count: int
    example: str
    """Such a value, or else the beginning of a record."""
    column: str | None
    """The column in the reason, if any."""


def is_ill(batch: Batch, options: StreamOptions) -> bool:
    """Whether too many records of a batch have another shape; a small batch is never ill."""
    return is_ill_share(batch.last - batch.first, len(_misshapen(batch)), options)


def is_ill_share(records: int, misshapen: int, options: StreamOptions) -> bool:
    """As `is_ill`, from the two counts."""
    return records >= FEWEST and misshapen > options.rejected_share * records


def wants_another(batches: Sequence[Batch], options: StreamOptions) -> bool:
    """Whether `judge` needs the batch after `batches` for its decision."""
    return (
        options.rejected_share < 1
        and len(batches) < AHEAD
        and not batches[-1].ended
        and all(is_ill(each, options) for each in batches)
        and not any(map(_is_whole, batches))
    )


def in_a_row(batch: Batch, before: int = 0) -> int:
    """The consecutive records at the end of `batch` that are rejected for their shape.

    `before` is the number of such records right before the batch.
    """
    misshapen = {each.position for each in _misshapen(batch)}
    places = range(batch.last - 1, batch.first - 1, -1)
    run = sum(1 for _ in takewhile(misshapen.__contains__, places))
    return run + before if run == batch.last - batch.first else run


def judge(batches: Sequence[Batch], before: int, options: StreamOptions) -> Decision:
    """May the first of `batches` be consumed? ``facts["outcome"]`` is the result.

    `batches` are the next one and, as `wants_another` says, up to two more; `before` is the number
    of consecutive rejects right before them. ``well`` is a yes. ``ill`` is a no that is only
    reported: the batch is consumed, with its misshapen records as rejects. ``stopped`` is a no that
    ends the run before the batch.
    """
    column = next(iter(new_columns(batches[0])), None)
    if column is not None and options.new_columns == "stop":
        return _stopped_at_column(batches[0], column)
    records, misshapen = batches[0].last - batches[0].first, _misshapen(batches[0])
    if options.rejected_share < 1:
        # In a batch that is too small for a share, the run of rejects before it may reach the
        # bound. The record with which it does must not be consumed, nor its batch.
        rejected = {each.position for each in misshapen}
        places = range(batches[0].first, batches[0].last)
        leading = sum(1 for _ in takewhile(rejected.__contains__, places))
        if records < FEWEST and leading > 0 and before + leading >= FEWEST:
            return _stopped(batches[:1], before, options)
        ill = [is_ill(each, options) for each in batches]
        if ill[0] and (any(map(_is_whole, batches)) or (len(ill) >= AHEAD and all(ill))):
            return _stopped(batches, before, options)
    if is_ill(batches[0], options):
        return _ill(batches[0], options)
    return Decision(
        question="intake",
        yes=True,
        because=f"{len(misshapen)} of {records} records have another shape",
        facts={"outcome": "well", "records": records, "rejected": len(misshapen)},
    )


def describe(batch: Batch, options: StreamOptions) -> Decision | None:
    """The decision to record for an ill batch that was consumed; None for any other."""
    return _ill(batch, options) if is_ill(batch, options) else None


def new_columns(batch: Batch) -> list[Notice]:
    """The columns of a batch that the stream did not begin with."""
    return [each for each in batch.notices if each.kind == "new column"]


def reasons(rejects: Sequence[Reject]) -> list[Reason]:
    """The reasons, the most frequent first; of equally frequent ones, the earliest first."""
    found = []
    for each in rejects:
        # The reason without the value, and the value; both are short.
        match = _CAME.fullmatch(each.reason)
        what, example = (match["what"], match["came"]) if match else (each.reason, each.raw)
        found.append((each.kind, what, example[:_LONGEST_EXAMPLE]))
    counts = Counter((kind, what) for kind, what, _ in found)
    examples = {(kind, what): example for kind, what, example in reversed(found)}
    result = []
    for (kind, what), count in counts.most_common():
        named = _COLUMN.search(what)
        column = None if named is None else str(ast.literal_eval(named["name"]))
        result.append(Reason(kind, what, count, examples[kind, what], column))
    return result


def remedy(reason: Reason, target: str) -> str:
    """The line of the pipeline file that resolves a reason, if any; without a full stop."""
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


def noticed(notice: Notice) -> Decision:
    """The decision to record, once, for something unusual without a reject."""
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
        f"(such as {notice.example}); this is reported once",
        facts={
            "outcome": "noticed",
            "notice": notice.kind,
            "column": notice.column,
            "first_position": notice.position,
            "records": notice.count,
            "example": notice.example,
        },
    )


def _ill(batch: Batch, options: StreamOptions) -> Decision:
    misshapen = _misshapen(batch)
    records, first = batch.last - batch.first, reasons(misshapen)[0]
    return Decision(
        question="intake",
        yes=False,
        because=f"{len(misshapen)} of {records} records were rejected for their shape "
        f"({options.rejected_share:.0%} is usual at most), most often because: {_phrase(first)}",
        facts=_facts("ill", [batch], options),
    )


def _stopped(batches: Sequence[Batch], before: int, options: StreamOptions) -> Decision:
    misshapen = [each for batch in batches for each in _misshapen(batch)]
    records = batches[-1].last - batches[0].first
    most, *others = reasons(misshapen)[:_MOST_REASONS]
    also = "".join(f"; {_phrase(each)}" for each in others)
    after = f", after {before} such records in a row" if before and records < FEWEST else ""
    return Decision(
        question="intake",
        yes=False,
        because=f"the stream has another shape from position {misshapen[0].position} on: "
        f"{len(misshapen)} of the {records} records from position {batches[0].first} do not "
        f"fit{after}: {_phrase(most)}{also}",
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


def _phrase(reason: Reason) -> str:
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
