"""What `thermodrift init` writes: a commented pipeline file, and its sample data.

The knobs and their defaults come from the models, so the file always agrees with them.
"""

from __future__ import annotations

import json
import math
import random
import textwrap
from pathlib import Path
from typing import Any

from flows.config.pipeline import Pipeline
from observability.core import atomic_file, toml_config
from observability.core.errors import BadConfiguration

_HEAD = """\
# A thermodrift pipeline. The four keys that are not commented out are enough; all others show
# their defaults. Run it with: thermodrift run {name}

[pipeline]
name = "sample"                  # names its folder and its rows in the history
task = "classification"          # or "regression"
"""
_STREAM = """\

[stream]
path = "sample.csv"              # relative to this file; CSV, Parquet or JSON lines
target = "busy"                  # the column to predict
"""

_GIVEN = {"pipeline": {"name", "task"}, "stream": {"path", "target"}}
_WIDTH, _INDENT = 96, "#     "


def write(folder: Path) -> list[Path]:
    """Write pipeline.toml and sample.csv into `folder`; neither is ever replaced."""
    targets = [folder / "pipeline.toml", folder / "sample.csv"]
    for path in targets:
        if path.exists():
            raise BadConfiguration(
                f"{path}: there is one already, and init replaces nothing; "
                "name another folder: thermodrift init DIR"
            )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_file.write(targets[1], sample().encode())
    try:
        atomic_file.write(targets[0], commented().encode())
    except OSError:
        # One file alone would make the next `init` refuse.
        targets[1].unlink(missing_ok=True)
        raise
    return targets


def commented() -> str:
    """The pipeline file as text."""
    parts = [_HEAD.format(name="pipeline.toml").rstrip()]
    for table, model in toml_config.tables(Pipeline):
        lines: list[str] = []
        for name, field in toml_config.knobs(model).items():
            if name in _GIVEN.get(table, ()):
                continue
            default = field.get_default(call_default_factory=True)
            shown = "" if default is None else _toml(default)
            lines += textwrap.wrap(
                field.description or "", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT
            )
            lines.append(f"# {name} = {shown}".rstrip())
        if table == "stream":
            parts.append(_STREAM.rstrip())
        parts.append("\n".join(lines if table in _GIVEN else ["", f"# [{table}]", *lines]))
    return "\n".join(parts) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{}" if not value else json.dumps(value)
    return json.dumps(value) if isinstance(value, str) else repr(value)


def sample(records: int = 12_000, seed: int = 7) -> str:
    """A synthetic stream as CSV: is a machine busy? The relation changes at half the stream.

    Columns: hour (0 to 24), load (0 to 1, sometimes blank), site (a, b or c), busy (0 or 1).
    """
    chance = random.Random(seed)
    lines = ["hour,load,site,busy"]
    for index in range(records):
        hour = (index / 12) % 24
        site = chance.choice("abc")
        load = min(1.0, max(0.0, 0.5 + 0.4 * math.sin(hour / 24 * math.tau) + chance.gauss(0, 0.1)))
        changed = index >= records // 2
        leaning = (load - 0.5) * (-6 if changed else 6) + (1.0 if site == "a" else 0.0)
        busy = int(chance.random() < 1 / (1 + math.exp(-leaning)))
        shown = "" if chance.random() < 0.01 else f"{load:.4f}"
        lines.append(f"{hour:.3f},{shown},{site},{busy}")
    return "\n".join(lines) + "\n"
