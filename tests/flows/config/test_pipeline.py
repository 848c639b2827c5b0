"""The pipeline file: four keys are enough; a mistake is told with its place and its cure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.config import pipeline
from flows.config.pipeline import Pipeline
from observability.core import toml_config
from observability.core.errors import BadConfiguration
from tests.flows import makers
from tests.flows.makers import make_pipeline, thermodrift

FOUR: Mapping[str, Mapping[str, Any]] = {
    "pipeline": {"name": "elec2", "task": "classification"},
    "stream": {"path": "elec2.parquet", "target": "class"},
}


def write(folder: Path, text: str) -> Path:
    """A pipeline file of this text."""
    path = folder / "pipeline.toml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(**tables: Mapping[str, Any]) -> str:
    """The four keys with others changed, added, or (None) left out."""
    return makers.toml(
        {name: {**FOUR.get(name, {}), **tables.get(name, {})} for name in (*FOUR, *tables)}
    )


def mistake(path: Path) -> str:
    """What is said of a file that is wrong."""
    with pytest.raises(BadConfiguration) as error:
        pipeline.read(path)
    return str(error.value)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_four_keys_are_enough(tmp_path: Path, task: str) -> None:
    """Everything else has the default of its model."""
    file = pipeline.read(write(tmp_path, changed(pipeline={"task": task})))
    assert "elec2" == file.name
    assert {"pipeline", "stream"} == file.pipeline.model_fields_set
    defaults = Pipeline.model_fields
    assert all(
        getattr(file.pipeline, table) == defaults[table].default
        for table in set(defaults) - {"pipeline", "stream"}
    )


def test_a_knob_reaches_its_model(tmp_path: Path) -> None:
    """What is written in a table is what its rule is given."""
    text = changed(worth={"cooldown_records": 7}, batch={"params": {"max_depth": 3}})
    read = pipeline.read(write(tmp_path, text)).pipeline
    assert 7 == read.worth.cooldown_records
    assert {"max_depth": 3} == read.batch.params


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline can be run from any folder, and moved together with its data."""
    folder = tmp_path / "pipelines"
    folder.mkdir()
    write(folder, changed())
    monkeypatch.chdir(tmp_path)
    file = pipeline.read(Path("pipelines/pipeline.toml"))
    assert folder == file.folder
    assert folder / "data" / "a.csv" == file.beside("data/a.csv")
    assert Path("/data/a.csv") == file.beside("/data/a.csv")


@pytest.mark.parametrize(
    ("text", "key", "allowed", "came"),
    [
        (
            changed(stream={"targett": "y"}),
            "stream.targett",
            "path, rejected_share, sample, target",
            "'y'",
        ),
        (
            changed(onlien={"seed": 1}),
            "onlien",
            "drift, forecast, gate, labels, online, pipeline",
            "{'seed': 1}",
        ),
        (changed(gate={"margin": 3}), "gate.margin", "pause_margin_c", "3"),
        (changed(stream={"batch": "many"}), "stream.batch", "valid integer", "'many'"),
        (changed(stream={"batch": 0}), "stream.batch", "greater than or equal to 1", "0"),
        (changed(stream={"path": ""}), "stream.path", "at least 1 character", "''"),
        (
            changed(blend={"learning_rates": [0.1, 2.0]}),
            "blend.learning_rates.1",
            "equal to 1",
            "2.0",
        ),
        (changed(drift={"error_votes": "perhaps"}), "drift.error_votes", "boolean", "'perhaps'"),
        (changed(pipeline={"task": "cluster"}), "pipeline.task", "'regression'", "'cluster'"),
        (
            changed(pipeline={"name": "Elec 2"}),
            "pipeline.name",
            "a-z, 0-9, '-' and '_'",
            "'Elec 2'",
        ),
        (changed(pipeline={"name": "../x"}), "pipeline.name", "beginning with", "'../x'"),
        (changed(pipeline={"name": 5}), "pipeline.name", "valid string", "5"),
        (
            changed(pipeline={"metric": "mae"}),
            "pipeline.metric",
            "auto (brier), log_loss, brier, accuracy, balanced_accuracy, f1, roc_auc",
            "'mae'",
        ),
        (
            changed(pipeline={"task": "regression", "metric": "f1"}),
            "pipeline.metric",
            "auto (mae), mae, rmse, pinball, r2",
            "'f1'",
        ),
        (changed(pipeline={"threshold": 1.5}), "pipeline.threshold", "between 0 and 1", "1.5"),
        (
            changed(pipeline={"task": "regression", "threshold": 0.5}),
            "pipeline.threshold",
            "only auto was allowed in regression",
            "0.5",
        ),
        (changed(gate={"pause_margin_c": 30.0}), "gate", "resume_margin_c (20)", "30"),
        ("online = 5\n" + changed(), "online", "valid dictionary", "5"),
    ],
)
def test_a_mistake_is_told_with_file_key_what_was_allowed_and_what_came(
    tmp_path: Path, text: str, key: str, allowed: str, came: str
) -> None:
    """A person can correct the file without looking anywhere else."""
    path = write(tmp_path, text)
    (line,) = mistake(path).splitlines()
    assert line.startswith(f"{path}: {key}: ")
    said, _, given = line.partition("; came: ")
    assert allowed in said
    assert came in given


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (changed(stream={"target": None}), "stream.target"),
        (changed(pipeline={"name": None}), "pipeline.name"),
        ("[pipeline]\nname = 'a'\ntask = 'regression'\n", "stream"),
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, text: str, key: str) -> None:
    """What is needed is said; nothing came, so nothing is said to have come."""
    path = write(tmp_path, text)
    assert f"{path}: {key}: this key is needed and is not there" == mistake(path)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """A line for each, so that a file is corrected in one go."""
    text = changed(stream={"target": None, "batch": 0}, gate={"margin": 3})
    lines = mistake(write(tmp_path, text)).splitlines()
    assert ["stream.target", "stream.batch", "gate.margin"] == [
        line.split(": ")[1] for line in lines
    ]


@pytest.mark.parametrize("text", ["[pipeline", "name = ", "a = 1\na = 2\n"])
def test_what_is_no_toml_is_told_with_the_line(tmp_path: Path, text: str) -> None:
    """The parser's own words say where."""
    path = write(tmp_path, text)
    assert mistake(path).startswith(f"{path}: not TOML: ")
    assert "line" in mistake(path)


def test_a_file_of_an_editor_that_marks_utf_8_is_read(tmp_path: Path) -> None:
    """Some editors put a byte-order mark first: it is no mistake of a person."""
    assert "elec2" == pipeline.read(write(tmp_path, "\ufeff" + changed())).name


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Missing, a folder, or not UTF-8: the message says which, and how to get one to start from."""
    latin = tmp_path / "latin.toml"
    latin.write_bytes('[pipeline]\nname = "größe"\n'.encode("latin-1"))
    for path, why in (
        (tmp_path / "none.toml", "No such file"),
        (tmp_path, "Is a directory"),
        (latin, "codec can't decode"),
    ):
        said = mistake(path)
        assert said.startswith(f"{path}: the pipeline file cannot be read: ")
        assert why in said
        assert "thermodrift init" in said


def number_knobs() -> list[tuple[str, str]]:
    """Every knob that is a number, by its table."""
    return [
        (table, name)
        for table, model in toml_config.tables(Pipeline)
        for name, knob in toml_config.knobs(model).items()
        if knob.annotation in (int, float, int | None, float | None)
    ]


def test_no_list_of_numbers_may_hold_one_that_compares_with_nothing(tmp_path: Path) -> None:
    """Each of the rates is checked as a knob of its own would be."""
    for wrong in ("nan", "inf", "0.0", "-0.1"):
        path = write(tmp_path, f"{changed()}[blend]\nlearning_rates = [0.1, {wrong}]\n")
        assert f"{path}: blend.learning_rates.1: " in mistake(path)
    assert "at least 1" in mistake(write(tmp_path, changed(blend={"learning_rates": []})))


@pytest.mark.parametrize(("table", "knob"), number_knobs())
def test_no_number_may_be_one_that_compares_with_nothing(
    tmp_path: Path, table: str, knob: str
) -> None:
    """A knob of NaN would answer no to every question that is asked of it, and never say so."""
    knobs: dict[str, object] = {knob: float("nan")}
    outer, _, inner = table.partition(".")
    path = write(tmp_path, changed(**{outer: {inner: knobs} if inner else knobs}))
    assert f"{path}: {table}.{knob}: " in mistake(path)


def test_there_are_knobs_of_numbers() -> None:
    """The search for them finds some in every table that has them; [blend] has a list of them."""
    tables = {table for table, _ in toml_config.tables(Pipeline)} - {"blend"}
    assert tables == {table for table, _ in number_knobs()}


@pytest.mark.parametrize("words", [["run"], ["drift", "show"]])
def test_a_mistake_ends_the_command_with_78(tmp_path: Path, words: list[str]) -> None:
    """The message alone goes to stderr, stdout stays empty, and no folder is made for it."""
    path = make_pipeline(tmp_path, records=10, stream={"batch": 0})
    done = thermodrift("--home", tmp_path / "home", *words, path, "--json")
    assert 78 == done.returncode
    assert done.stderr.startswith(f"thermodrift: {path}: stream.batch: ")
    assert 1 == len(done.stderr.splitlines())
    assert "" == done.stdout
    assert not (tmp_path / "home").exists()
