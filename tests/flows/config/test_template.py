"""What `init` writes: a file that is right as it stands, and whose comments tell the truth."""

from __future__ import annotations

import csv
import re
import tomllib
from pathlib import Path

import pytest

from flows.config import pipeline, template
from flows.config.pipeline import Pipeline
from models.stream.source import Stream
from observability.core import toml_config
from observability.core.errors import BadConfiguration
from tests.flows.makers import thermodrift

HEADER = re.compile(r"(?:# )?\[([\w.]+)\]")
KNOB = re.compile(r"# (\w+) = ?(.*)")
GIVEN = {"name", "task", "path", "target"}
"""The keys that are not commented out."""


def commented() -> dict[str, dict[str, str]]:
    """The knobs that are commented out, by table: the text after the equals sign."""
    found: dict[str, dict[str, str]] = {}
    table = ""
    for line in template.commented().splitlines():
        if header := HEADER.fullmatch(line):
            table = header[1]
        elif knob := KNOB.fullmatch(line):
            found.setdefault(table, {})[knob[1]] = knob[2]
    return found


def test_the_file_is_a_pipeline_of_which_four_keys_are_set(tmp_path: Path) -> None:
    """A person may run it as it is: all else has a default."""
    path, _ = template.write(tmp_path)
    read = pipeline.read(path).pipeline
    assert read.model_dump(exclude_unset=True) == {
        "pipeline": {"name": "sample", "task": "classification"},
        "stream": {"path": "sample.csv", "target": "busy"},
    }


def test_every_knob_stands_in_the_file() -> None:
    """Whoever reads the file knows all that can be changed."""
    knobs = {
        table: {
            name
            for name in toml_config.knobs(model)
            if (table, name)
            not in {
                *(("pipeline", "name"), ("pipeline", "task")),
                *(("stream", "path"), ("stream", "target")),
            }
        }
        for table, model in toml_config.tables(Pipeline)
    }
    assert "forecast.thermal" in knobs
    assert knobs == {table: set(shown) for table, shown in commented().items()}


def test_the_commented_knobs_are_the_defaults() -> None:
    """The comment marks taken away, the file means what it meant before."""
    text = template.commented()
    opened = re.sub(r"^# (\[[\w.]+\]|\w+ = .+)$", r"\1", text, flags=re.MULTILINE)
    written, meant = tomllib.loads(opened), Pipeline.model_validate(tomllib.loads(text))
    shown = {
        table: {name for name, value in knobs.items() if value}
        for table, knobs in commented().items()
    }
    tables = {**written, "forecast.thermal": written["forecast"].pop("thermal")}
    assert {table: set(tables[table]) - GIVEN for table in shown} == shown
    written["forecast"]["thermal"] = tables["forecast.thermal"]
    assert meant == Pipeline.model_validate(written)


def test_a_knob_without_a_value_is_one_whose_default_is_none() -> None:
    """TOML has no null: such a knob is shown without a value, and no other is."""
    empty = {
        (table, name)
        for table, shown in commented().items()
        for name, text in shown.items()
        if not text
    }
    nones = {
        (table, name)
        for table, model in toml_config.tables(Pipeline)
        for name, knob in toml_config.knobs(model).items()
        if not knob.is_required() and knob.get_default(call_default_factory=True) is None
    }
    assert nones == empty
    assert ("gate", "trace") in nones


def test_it_replaces_nothing(tmp_path: Path) -> None:
    """Neither a pipeline file nor data of the same name is lost, and nothing else is written."""
    for name in ("pipeline.toml", "sample.csv"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(BadConfiguration, match=f"{name}: there is one already"):
            template.write(folder)
        assert ["mine"] == [path.read_text() for path in folder.iterdir()]


def test_the_sample_is_always_the_same() -> None:
    """What a newcomer sees is what the documents show; another seed gives another stream."""
    assert template.sample() == template.sample()
    assert template.sample(100) != template.sample(100, seed=8)
    assert template.sample(12_000).startswith(template.sample(6_000).rstrip("\n")[:1_000])


def test_the_sample_has_what_streams_have() -> None:
    """A number, a category, blanks and both classes; the habits turn round at half of it."""
    rows = list(csv.DictReader(template.sample().splitlines()))
    assert 12_000 == len(rows)
    assert {"a", "b", "c"} == {row["site"] for row in rows}
    assert {"0", "1"} == {row["busy"] for row in rows}
    blanks = sum(not row["load"] for row in rows)
    assert 60 < blanks < 240

    def busy_when_loaded(part: list[dict[str, str]]) -> float:
        loaded = [row for row in part if row["load"] and float(row["load"]) > 0.7]
        return sum(row["busy"] == "1" for row in loaded) / len(loaded)

    assert busy_when_loaded(rows[:6_000]) > 0.75
    assert busy_when_loaded(rows[6_000:]) < 0.35


def test_the_sample_is_a_stream_without_a_reject(tmp_path: Path) -> None:
    """The columns are taken for what they are, and every record is learned."""
    toml, _ = template.write(tmp_path)
    file = pipeline.read(toml)
    stream = Stream(file.beside(file.pipeline.stream.path), "classification", file.pipeline.stream)
    assert (["hour", "load"], ["site"]) == (stream.schema.numbers, stream.schema.categories)
    assert "int" == stream.schema.label_kind


def test_init_writes_where_it_is_told(tmp_path: Path) -> None:
    """The real command makes the folder, says what it wrote, and refuses to do it twice."""
    first = thermodrift("init", "new/folder [b]", cwd=tmp_path)
    assert 0 == first.returncode, first.stderr
    folder = tmp_path / "new" / "folder [b]"
    assert {"pipeline.toml", "sample.csv"} == {path.name for path in folder.iterdir()}
    assert "now run: thermodrift run 'new/folder [b]/pipeline.toml'\n" in first.stdout
    second = thermodrift("init", "new/folder [b]", cwd=tmp_path)
    assert 78 == second.returncode
    assert "there is one already" in second.stderr
