"""Generate docs/configuration.md from the models of the pipeline file and the home's file.

`thermodrift schema --markdown` prints that page, so it always agrees with the knobs. Only what no
single knob can say is written here: how knobs go together, and when they are read. This module
reads no pipeline file and touches no disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.config.pipeline import Pipeline
from observability.core import toml_config
from observability.drift import drift
from observability.history.home_config import HomeFile

_HEAD = """\
# The pipeline file

One TOML file says everything about a pipeline. Four keys are needed, all others have the defaults
below; `thermodrift init` writes a file that shows each of them in a comment.

```toml
[pipeline]
name = "prices"
task = "regression"
[stream]
path = "prices.csv"
target = "price"
```

- **A mistake is refused**, never guessed at: an unknown key, a value outside its bounds or a knob
  that contradicts another ends the command with exit code 78. The message names the file, the key,
  what was allowed and what came.
- **Paths** are relative to the pipeline file.
- **The file is read when a run begins.** What a pipeline has learned with cannot be changed:
  once the first record is learned, another target, task, `[online]`, `[blend]`, or another
  `error_false_alarm_records` or `error_reference_rows`, is refused, and the message names both
  values. Give the changed pipeline another `name`: it begins anew beside the old one. All other
  knobs apply from the next run on.
- **Editors** that check TOML against a JSON schema get it from `thermodrift schema`.

What belongs to a whole home, and not to one pipeline, has [a file of its own](#the-homes-file).
This page is printed by `thermodrift schema --markdown`.
"""

_HOME_HEAD = """\
# The home's file

`thermodrift.toml`, at the top of [the home](operations.md#the-home), says where the history's rows
are, what `thermodrift upkeep` keeps, what energy costs, where predictions are served and where
figures go. Without it the history is a file in the home that keeps everything, and tells joules
alone.

```toml
[upkeep]
keep_days = 365
readings_keep_days = 30
[energy]
price_per_kwh = 0.28
carbon_g_per_kwh = 380
pue = 1.4
```

Every command that opens the history reads it, and a mistake in it is refused with exit code 78, as
in a pipeline file.
"""

_TOGETHER: Mapping[str, str] = {
    "stream": "A column is the target, ignored, a number or a category: naming it twice is refused."
    " The kinds that the first `sample` records show are pinned when the pipeline begins; a later"
    " record that does not fit them is a reject, with its reason, and changes no model.",
    "labels": "`thermodrift serve` reads it when it starts, and follows the file;"
    " [how labels come late](serving.md#a-file-of-labels).",
    "online": "A factory of your own is called with what `params` holds, and with `task` and `seed`"
    " where it takes them; it returns a river model.",
    "batch": "A factory of your own is called with `task` and `seed` where it takes them; it"
    " returns a model with scikit-learn's `fit` and `predict`, on which `params` are then set.",
    "drift": "`min_rows` must not be above the smaller of `window` and `reference_rows`: otherwise"
    " no check could ever compare anything.",
    "history": "`url` and `data` go together, and `data` is an absolute path: every host names the"
    " same one. [How to set a lake up](operations.md#several-hosts-one-history).",
    "upkeep": "Nothing is removed unless a knob here says so and `thermodrift upkeep` is run. These"
    " are kept in any case: every model and its champion periods, the newest run of each pipeline,"
    " and every request that is not closed. `predictions_keep` must be larger than the"
    " `drift.window` of every pipeline in the home: a drift check compares only predictions that"
    " are still there.",
    "energy": "Price and grams of a fit are those of the joules that its devices used, times `pue`."
    " They are written into the history when it ends, so another rate counts from the next run on;"
    " joules are written without `pue`. What is left out is unknown there, and not zero.",
    "serve": "`thermodrift serve` reads it when it starts; its options come before it."
    " [How to serve predictions](serving.md).",
    "metrics": "It is read whenever figures are handed on. What cannot be handed on is said in the"
    " run's summary and fails nothing. [Which figures there are](metrics.md).",
    "gate": '`resume_margin_c` must be at or above `pause_margin_c`, and `source = "trace"` needs'
    " a `trace`.",
}
"""What holds between the knobs of a table; tests/test_docs.py tries each refusal."""

_KINDS = {
    "boolean": "`true`, `false`",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "object": "table",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_COLUMNS = "| knob | allowed | default | meaning |\n|---|---|---|---|"


def markdown() -> str:
    """The whole of docs/configuration.md, with a line end at its end."""
    return "\n".join([_HEAD, *_sections(Pipeline), _HOME_HEAD, *_sections(HomeFile)])


def _sections(file: type[BaseModel]) -> Iterator[str]:
    """Every table of a file."""
    shapes = file.model_json_schema()["$defs"]
    for table, model in toml_config.tables(file):
        yield _section(table, model, shapes[model.__name__])


def _section(table: str, model: type[BaseModel], shape: Mapping[str, Any]) -> str:
    rows = (
        _row(name, field, shape["properties"][name])
        for name, field in toml_config.knobs(model).items()
    )
    parts = [f"## [{table}]\n", f"{shape['description']}\n", _COLUMNS, *rows]
    if table in _TOGETHER:
        parts.append(f"\n{_TOGETHER[table]}")
    if table == "drift":
        parts.append(f"\n{_methods()}")
    return "\n".join(parts) + "\n"


def _row(name: str, field: FieldInfo, shape: Mapping[str, Any]) -> str:
    default = "needed"
    if not field.is_required():
        value = field.get_default(call_default_factory=True)
        default = "left out" if value is None else f"`{json.dumps(value)}`"
    cells = (f"`{name}`", _allowed(shape), default, field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _allowed(shape: Mapping[str, Any]) -> str:
    """The values that a knob takes, in words: from the JSON schema of its type and bounds."""
    if "anyOf" in shape:
        return next(_allowed(each) for each in shape["anyOf"] if each["type"] != "null")
    if "enum" in shape:
        return ", ".join(f"`{json.dumps(each)}`" for each in shape["enum"])
    if shape["type"] == "array":
        item, comma, within = _allowed(shape["items"]).partition(",")
        return f"list of {item}s{comma}{within}"
    kind = _KINDS[shape["type"]]
    bounds = [f"{word} {_number(shape[key])}" for key, word in _BOUNDS.items() if key in shape]
    return ", ".join([kind, *bounds])


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) and abs(value) < 1e15 else f"{value:g}"


def _methods() -> str:
    """The statistical tests, and which side of a threshold is drift."""
    rows = [
        f"| `{name}` | {'distance' if is_larger else 'p-value'} "
        f"| {'from its threshold up' if is_larger else 'from its threshold down'} |"
        for name, is_larger in drift.LARGER_IS_DRIFT.items()
    ]
    return "\n".join(["| method | its score | is drift |", "|---|---|---|", *rows])
