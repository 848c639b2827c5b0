"""`thermodrift stream show`, and the same table at the start of a first run."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from flows.config import pipeline as pipelines
from flows.run import schema_report
from tests.flows.makers import make_pipeline, thermodrift


def test_the_command_shows_every_column_with_its_reason(tmp_path: Path) -> None:
    """Before anything was learned; as a document for machines too. It writes nothing."""
    pipeline, home = make_pipeline(tmp_path), tmp_path / "home"
    done = thermodrift("--home", str(home), "stream", "show", str(pipeline), "--json")
    document = json.loads(done.stdout)
    assert (False, 0, "classification") == (
        document["pinned"],
        document["position"],
        document["task"],
    )
    seen = {each["name"]: each for each in document["columns"]}
    assert "target" == seen["label"]["read_as"]
    assert all(
        each["because"] and each["example"] and each["missing_share"] is not None
        for each in seen.values()
    )
    assert not home.exists()
    told = thermodrift("--home", str(home), "stream", "show", str(pipeline)).stdout
    assert all(name in told for name in seen)
    assert "as a first run would begin" in " ".join(told.split())


def test_a_run_begins_with_the_table_and_pins_it(tmp_path: Path) -> None:
    """The first run shows it on stderr; later ones, and the command, go by what was pinned."""
    pipeline, home = make_pipeline(tmp_path, records=300), tmp_path / "home"
    first = thermodrift("--home", str(home), "run", str(pipeline), "--limit", "100", "--json")
    assert "what was understood of" in first.stderr
    again = thermodrift("--home", str(home), "run", str(pipeline), "--json")
    assert "what was understood of" not in again.stderr
    done = thermodrift("--home", str(home), "stream", "show", str(pipeline), "--json")
    document = json.loads(done.stdout)
    assert document["pinned"]
    assert document["position"] == json.loads(again.stdout)["position"]
    assert document["columns"] == json.loads(again.stdout)["columns"]


def test_a_wide_stream_is_shown_in_part(tmp_path: Path) -> None:
    """Two thousand lines would hide what matters; the rest is a command away."""
    names = [f"c{place}" for place in range(60)]
    rows = [",".join(str((place * row) % 7 / 2) for place in range(60)) for row in range(30)]
    lines = [
        ",".join([*names, "y"]),
        *(f"{row},{'ab'[place % 2]}" for place, row in enumerate(rows)),
    ]
    (tmp_path / "wide.csv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "wide.toml"
    path.write_text(
        '[pipeline]\nname = "wide"\ntask = "classification"\n'
        '[stream]\npath = "wide.csv"\ntarget = "y"\n'
    )
    document = schema_report.collect(pipelines.read(path), tmp_path / "home")
    with (tmp_path / "shown").open("w") as file:
        schema_report.render(document, Console(file=file, width=120), most=10)
    shown = (tmp_path / "shown").read_text()
    assert "c9" in shown
    assert "c10" not in shown
    assert "and 51 more: `thermodrift stream show`" in shown
