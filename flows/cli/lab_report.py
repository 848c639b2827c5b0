"""Shows what the laboratory found: tables for people, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from observability.core import cli_output

if TYPE_CHECKING:
    from flows.laboratory.records import LabConfig
    from flows.laboratory.streams import LabStream

_HEAD = """\
# The laboratory

Made on {made_on} by {made_by}. The figures are those of [laboratory.json](laboratory.json), and
the scores over time are [a picture](laboratory.svg). Every default of thermodrift is used as it is,
on every stream alike: nothing is tuned to one. `thermodrift lab compare` makes the same table for a
pipeline of your own, and [commands.md](commands.md#the-laboratory) says what the commands do.

- **never**, **every ...** and **amount** serve each model that they fit: the first one for ever,
  one after so many records, one whenever the rows have doubled.
- **drift** and **worth** are runs of the product: a retrain at each alarm, and its own rule.
- **... alone** is one member without the blend; of the batch model it is the champion of **worth**.
  **no batch** is the blend of the online members.
- **optimum** is the schedule that hindsight finds best among the models of all positions: for each
  number of fits dynamic programming finds the best one of the batch model, and of these and of the
  schedules above the one counts whose served loss and price are least.

A model serves from the record on that arrives when its fit has ended. A record is predicted before
its label is known to anything.
"""
_HEADS = (
    *("policy", "score", "vs best", "best", "fits", "promoted", "fit s", "J", "regret"),
    "alone",
)
_SUMMARY_HEADS = (
    *("stream", "kind", "score", "of", "vs best", "best", "schedule", "saved", "regret"),
)
_ON_PAPER = {"best", "promoted", "J", "kind", "of"}
"""Columns of the pages that a terminal does not show."""
_DRIFT_HEADS = ("stream", "method", "changes", "seen", "median delay", "false per 20,000")
Cells = tuple[str, ...]


def compared(
    shipped: Sequence[LabStream], documents: Sequence[Mapping[str, Any]], config: LabConfig
) -> dict[str, Any]:
    """The document of a comparison, with the truth about the streams that ship."""
    from flows.laboratory import compare

    known = {stream.name: stream for stream in shipped}
    return {
        "conditions": config.model_dump(),
        "streams": [{**_truth(known.get(each["stream"])), **each} for each in documents],
        "summary": compare.summary(documents),
    }


def _truth(stream: LabStream | None) -> dict[str, Any]:
    """What is known of a stream that ships; nothing of a user's own."""
    if stream is None:
        return {}
    drifts = [{"position": each.position, "width": each.width} for each in stream.drifts]
    return {"kind": stream.kind, "about": stream.about, "drifts": drifts}


def tried(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The document of trials of drift methods."""
    from flows.laboratory import drift_trial

    return {"tolerance": drift_trial.TOLERANCE, "methods": drift_trial.judged(trials)}


def page(document: Mapping[str, Any]) -> str:
    """docs/laboratory.md, from the figures in docs/laboratory.json."""
    drift, comparison = document["drift"], document["compared"]
    parts = [
        _HEAD.format(made_on=document["made_on"], made_by=document["made_by"]),
        compared_markdown(comparison),
    ]
    if drift["methods"]:
        parts += ["## Drift, seen and imagined\n", drift_markdown(drift)]
    return "\n".join(parts)


def render_compared(document: Mapping[str, Any]) -> None:
    """Print the comparison of each stream, and then the product's rule on all of them."""
    for stream in document["streams"]:
        rows = _narrow(_HEADS, _policy_rows(stream))
        cli_output.print_table(next(rows), rows, title=_title(stream))
    rows = _narrow(_SUMMARY_HEADS, _summary_rows(document))
    cli_output.print_table(next(rows), rows, title="the product's rule")
    cli_output.stdout().print(_explanation(document).replace("*", ""), highlight=False)


def _narrow(heads: Sequence[str], rows: Iterable[Cells]) -> Iterator[Sequence[str]]:
    """The heads and the rows without what a terminal of 80 columns has no room for."""
    kept = [index for index, head in enumerate(heads) if head not in _ON_PAPER]
    for cells in (heads, *rows):
        yield [cells[index] for index in kept]


def compared_markdown(document: Mapping[str, Any]) -> str:
    """The same as a page in Markdown, with a line end at its end."""
    parts = [_table(_SUMMARY_HEADS, _summary_rows(document)), _explanation(document)]
    for stream in document["streams"]:
        parts += [
            f"### {stream['stream']}",
            _sentence(stream),
            _table(_HEADS, _policy_rows(stream)),
        ]
    return "\n\n".join(parts) + "\n"


def render_drift(document: Mapping[str, Any]) -> None:
    """Print delays, misses and false alarms of each method."""
    cli_output.print_table(_DRIFT_HEADS, _drift_rows(document))
    cli_output.stdout().print(_drift_explanation(document), highlight=False)


def drift_markdown(document: Mapping[str, Any]) -> str:
    """The same as Markdown, with a line end at its end."""
    table = _table(_DRIFT_HEADS, _drift_rows(document))
    return f"{table}\n\n{_drift_explanation(document)}\n"


def _drift_rows(document: Mapping[str, Any]) -> Iterator[Cells]:
    for row in document["methods"]:
        delay, false = row["median_delay"], row["false_per_20000"]
        yield (
            row["stream"],
            row["method"],
            str(row["changes"]),
            f"{row['seen'] / row['changes']:.0%}" if row["changes"] else "-",
            "-" if delay is None else f"{delay:,.0f}",
            "-" if false is None else f"{false:.2f}",
        )


def _drift_explanation(document: Mapping[str, Any]) -> str:
    return (
        "A change is seen if an alarm comes while it goes on, or within "
        f"{document['tolerance']:,} records after it; the delay is counted from its beginning. All "
        "other alarms are false, per 20,000 records in which nothing changes. drift.judge is the "
        "product with a retrain at each alarm: it says at each check that the world is still "
        "another one, which counts once as long as it lasts. Error tests are its tests of errors "
        "alone; these and river's detectors hear the error of what was served."
    )


def render_replayed(document: Mapping[str, Any]) -> None:
    """Print how many decisions would have been different, and each of them."""
    out = cli_output.stdout()
    for question, count in document["questions"].items():
        if not count["decisions"]:
            continue
        told = (
            f"{question}: {count['different']:,} of {count['judged']:,} decisions would have been "
            "different"
        )
        unknown = count["decisions"] - count["judged"]
        if unknown:
            told += f"; the facts of {unknown:,} more do not hold what their judging needs"
        out.print(told, highlight=False)
    if not any(count["decisions"] for count in document["questions"].values()):
        out.print(f"{document['pipeline']}: the history has no decisions of this pipeline")
    if document["different"]:
        answer = {True: "yes", False: "no"}
        cli_output.print_table(
            ["position", "question", "was", "would be", "because"],
            [
                (
                    f"{each['position']:,}",
                    each["question"],
                    answer[each["was"]],
                    answer[each["would_be"]],
                    each["would_be_because"],
                )
                for each in document["different"]
            ],
        )


def render_tuned(document: Mapping[str, Any]) -> None:
    """Print the front of loss against joules, and what is proposed."""
    rows = [
        (
            str(row["trial"]),
            f"{row['relative_loss']:.4f}",
            None if row["score"] is None else _score(row["score"]),
            str(row["retrains"]),
            f"{row['joules']:.0f}",
            _knobs(row["knobs"]),
        )
        for row in sorted(document["trials"], key=lambda row: row["joules"])
        if row["on_front"] or row["trial"] == 0
    ]
    heads = ["trial", "loss", "score", "fits", "J", "knobs"]
    cli_output.print_table(heads, rows, title="the front, and the file as it is (trial 0)")
    out = cli_output.stdout()
    proposed = document["trials"][document["proposed"]]
    if not proposed["knobs"]:
        out.print("nothing is better than the file as it is", highlight=False)
        return
    out.print(
        f"proposed: trial {proposed['trial']}, the cheapest whose loss is within a hundredth of "
        "the least one; loss is relative to the file as it is, and joules are estimated",
        highlight=False,
    )
    if document["written"]:
        out.print(f"written into {document['written']}", highlight=False, markup=False)


def _knobs(knobs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in knobs.items()) or "as it is"


def _title(stream: Mapping[str, Any]) -> str:
    about = f": {stream['about']}" if "about" in stream else ""
    return f"{stream['stream']}{about}; {stream['records']:,} records, {_metric(stream)}"


def _sentence(stream: Mapping[str, Any]) -> str:
    about = f"{stream['about']}. " if "about" in stream else ""
    where = ", ".join(map(_place, stream.get("drifts", ())))
    changes = f"It changes at {where}. " if where else ""
    return f"{about}{stream['records']:,} records; {_metric(stream)}. {changes}".strip()


def _place(drift: Mapping[str, int]) -> str:
    to = f" to {drift['position'] + drift['width']:,}" if drift["width"] else ""
    return f"{drift['position']:,}{to}"


def _metric(stream: Mapping[str, Any]) -> str:
    side = "larger" if stream["larger_is_better"] else "smaller"
    return f"{stream['score']}, {side} is better"


def _policy_rows(stream: Mapping[str, Any]) -> Iterable[Cells]:
    for row in stream["policies"]:
        yield (
            row["policy"],
            _score(row["score"]),
            _difference(row["against_best_member"]),
            row["best_member"],
            str(row["retrains"]),
            str(row["promotions"]),
            f"{row['fit_s']:.1f}",
            f"{row['joules']:.0f}",
            _percent(row["regret"]),
            _percent(row["champion_regret"]),
        )


def _summary_rows(document: Mapping[str, Any]) -> Iterable[Cells]:
    for stream, found in zip(document["streams"], document["summary"], strict=True):
        yield (
            found["stream"],
            stream.get("kind", "own"),
            _score(found["score"]),
            stream["score"],
            _difference(found["against_best_member"]),
            found["best_member"],
            found["schedule"] or "none is equal",
            _percent(found["saved"]),
            _percent(found["regret"]),
        )


def _explanation(document: Mapping[str, Any]) -> str:
    conditions = document["conditions"]
    return (
        f"Records arrive at {conditions['records_per_s']:g} a second while a model is fitted. A "
        f"fit costs what the baseline loses in {conditions['fit_price']:g} records. J are joules, "
        f"estimated: {conditions['cpu_watts']:g} W for a busy core. *vs best* is the served score "
        "against that of its own best member, positive where it is better. *Regret* is the served "
        "loss with the price of all fits, above that of the optimum's row; below 0 it is where the "
        "product's comparison of models or the blend found more than any schedule. *alone* is the "
        "same of the batch model without the blend, against the exact optimum of dynamic "
        "programming. *Schedule* is the fixed one with the fewest fit seconds whose score "
        "is not more than 0.2 points, or 1 % of an error, below the product's, and *saved* the "
        "share of its seconds that the product does not need."
    )


def _difference(value: float) -> str:
    return f"{value:+.4f}" if abs(value) < 10 else f"{value:+.1f}"


def _score(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _table(heads: Sequence[str], rows: Iterable[Cells]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
