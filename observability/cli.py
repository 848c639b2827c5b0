"""The commands of the history. They decide nothing, and import slow libraries when they run."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from observability.core.cli_output import JsonOption, cli_context, print_json, print_table, stdout

if TYPE_CHECKING:
    import pyarrow as pa

history_app = typer.Typer(
    help="Ask what happened, and why: every decision, run, model and score, with SQL.",
    no_args_is_help=True,
)


@history_app.command("tables")
def tables(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the public views, their columns and how many rows each has."""
    from observability.history.store import History

    views = History(cli_context(context).home).views()
    if as_json:
        print_json([{"view": v.name, "rows": v.rows, "columns": v.columns} for v in views])
    else:
        print_table(
            ["view", "rows", "columns"], [(v.name, v.rows, ", ".join(v.columns)) for v in views]
        )


@history_app.command("sql")
def sql(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help='One SQL question, such as "FROM decisions".')],
    as_json: JsonOption = False,
) -> None:
    """Answer one question in SQL. The history cannot be changed by it."""
    from observability.history.store import History

    answer = History(cli_context(context).home).ask(question)
    names, rows = answer.column_names, _rows(answer)
    if as_json:
        keys = _keys(names)
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        print_table(names, rows)


@history_app.command("expectations")
def expectations(
    context: typer.Context,
    pipeline: Annotated[
        str | None, typer.Argument(help="Only of this pipeline; left out: of all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what retrains were expected to bring, what came, and how well the two agree.

    Gains are per record, as shares of the baseline's loss. `ratio` is what came as a share of what
    was expected, over the retrains of a kind of evidence, with its interval of 95 %.
    """
    from observability.history.store import History
    from observability.worth import calibration
    from observability.worth.calibration import Pair

    rows = History(cli_context(context).home).ask(_EXPECTATIONS).to_pylist()
    kinds: dict[tuple[str, str], list[Pair]] = {}
    for row in rows:
        if pipeline is not None and row["pipeline"] != pipeline:
            continue
        for kind in (row["evidence"], "all"):
            pairs = kinds.setdefault((row["pipeline"], kind), [])
            pairs.append(Pair(row["expected_gain"], row["realised_gain"]))
    found = []
    for (name, kind), pairs in sorted(kinds.items()):
        known = calibration.of(pairs)
        judged = calibration.judge(known) if kind == "all" else None
        found.append(
            {
                "pipeline": name,
                "evidence": kind,
                **known._asdict(),
                "expected": sum(each.expected for each in pairs),
                "realised": sum(each.realised for each in pairs),
                "trusted": None if judged is None else judged.yes,
                "because": None if judged is None else judged.because,
            }
        )
    if as_json:
        print_json(found)
        return
    names = ("pipeline", "evidence", "checked", "expected", "realised", "ratio", "low", "high")
    print_table(names, [tuple(each[name] for name in names) for each in found])
    for each in found:
        if each["because"] is not None:
            trusted = "" if each["trusted"] else "; an alarm decides instead"
            stdout().print(f"{each['pipeline']}: {each['because']}{trusted}", soft_wrap=True)


@history_app.command("export")
def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")],
    file_format: Annotated[
        Literal["parquet", "csv"], typer.Option("--format", help="Kind of the files.")
    ] = "parquet",
    as_json: JsonOption = False,
) -> None:
    """Write every public view into a file of its own."""
    from observability.history.store import History

    written = History(cli_context(context).home).export(folder, file_format)
    if as_json:
        print_json({"files": written})
    else:
        for path in written:
            stdout().print(path, soft_wrap=True, highlight=False, markup=False)


_EXPECTATIONS = """
SELECT pipeline, evidence, expected_gain, realised_gain FROM expectations
WHERE expected_gain IS NOT NULL AND realised_gain IS NOT NULL ORDER BY expected_at"""


def _keys(names: Sequence[str]) -> list[str]:
    """Return unique names of columns: with equal names one column would hide the other."""
    keys: list[str] = []
    for name in names:
        choices = (name if n == 0 else f"{name}_{n}" for n in count())
        keys.append(
            next(key for key in choices if key not in keys and (key == name or key not in names))
        )
    return keys


def _rows(answer: pa.Table) -> list[tuple[object, ...]]:
    """Return the rows as Python values. Raises BadQuestion for values that Python cannot hold."""
    from observability.history.store import BadQuestion

    try:
        columns = [[_number(cell) for cell in column.to_pylist()] for column in answer.columns]
    except (ValueError, OverflowError) as cause:
        raise BadQuestion(
            f"the answer has a value that cannot be shown here ({cause}); ask for it as text: "
            "CAST(... AS VARCHAR)"
        ) from cause
    return list(zip(*columns, strict=True))


def _number(cell: object) -> object:
    """Return a plain number for a decimal, since DuckDB's sums of integers are decimals."""
    if isinstance(cell, Decimal):
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    return cell
