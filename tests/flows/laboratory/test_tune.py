"""The search is seeded, its front is one, and what it writes is a pipeline file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.config import pipeline
from flows.laboratory import crew, product_run, tune
from flows.laboratory.records import LabConfig
from flows.laboratory.tune import FileChanged
from observability.core.errors import BadConfiguration
from tests.flows.makers import make_pipeline

FILE = """\
# What we sell.
[pipeline]
name = "prices"            # in the history
task = "regression"
[stream]
path = "prices.csv"
target = "price"

[worth]   # when it pays
# cooldown_records = 2000
min_new_rows = 300  # after a quiet night

[gate]
source = "off"
"""
KNOBS = {"worth.cooldown_records": 500, "worth.min_new_rows": 100, "drift.performance_drop": 0.05}


def test_the_declared_knobs_are_knobs_of_a_pipeline_file(tmp_path: Path) -> None:
    """Every value of every choice is allowed."""
    file = pipeline.read(make_pipeline(tmp_path, 50))
    for name, values in tune.CHOICES.items():
        for value in values:
            product_run.with_knobs(file, tune.tables({name: value}))


def test_the_search_is_seeded_and_begins_with_the_file_as_it_is() -> None:
    """The same seed tries the same knobs, no set twice."""
    tried = tune.trials(20, seed=4)
    assert tried == tune.trials(20, seed=4) != tune.trials(20, seed=5)
    assert {} == tried[0]
    assert 20 == len({tuple(each.items()) for each in tried})


def document(loss: float, joules: float) -> dict[str, float]:
    """What one trial has lost and spent."""
    return {"loss": loss, "joules": joules, "fit_s": joules, "score": 1 - loss, "retrains": 1}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_has_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    """For every other trial there is one on the front that is as good in both."""
    found = tune.judged([{}] * len(pairs), [document(loss, joules) for loss, joules in pairs])
    front = [row for row in found["trials"] if row["on_front"]]
    proposed = found["trials"][found["proposed"]]
    assert proposed["relative_loss"] <= 1.01 * min(row["relative_loss"] for row in front)
    for row in found["trials"]:
        assert any(
            each["relative_loss"] <= row["relative_loss"] and each["joules"] <= row["joules"]
            for each in front
        )


def test_several_streams_count_alike() -> None:
    """A loss is relative to the file as it is, so that minutes do not outweigh accuracies."""
    of_both = [document(0.2, 5), document(0.1, 9), document(40.0, 5), document(60.0, 1)]
    found = tune.judged([{}, {"worth.min_new_rows": 100}], of_both)
    assert [1.0, 1.0] == [row["relative_loss"] for row in found["trials"]]
    assert [10, 10] == [row["joules"] for row in found["trials"]]
    assert 0 == found["proposed"]


def test_what_is_written_reads_and_keeps_every_comment(tmp_path: Path) -> None:
    """Values change in their lines, or come below the header of their table, or at the end."""
    path = tmp_path / "prices.toml"
    path.write_text(FILE)
    tune.write(path, FILE.encode(), KNOBS)
    text = path.read_text()
    for line in FILE.splitlines():
        assert line in text or line.startswith("min_new_rows")
    assert "min_new_rows = 100  # after a quiet night" in text
    written = pipeline.read(path).pipeline
    assert (500, 100, 0.05) == (
        written.worth.cooldown_records,
        written.worth.min_new_rows,
        written.drift.performance_drop,
    )
    assert "off" == written.gate.source


@given(st.permutations(list(KNOBS)), st.sampled_from([FILE, FILE.split("\n\n")[0], ""]))
def test_an_edit_sets_what_it_should_and_nothing_else(order: list[str], text: str) -> None:
    """The tables read as before, with the knobs in them."""
    expected = tomllib.loads(text)
    for name, value in KNOBS.items():
        expected.setdefault(name.split(".")[0], {})[name.split(".")[1]] = value
    assert expected == tomllib.loads(tune.edited(text, {name: KNOBS[name] for name in order}))


def test_a_file_that_was_changed_meanwhile_is_not_written(tmp_path: Path) -> None:
    """What somebody has saved during the search is not lost."""
    path = tmp_path / "prices.toml"
    path.write_text(FILE + "\n[blend]\n")
    with pytest.raises(FileChanged, match=r"prices\.toml was changed"):
        tune.write(path, FILE.encode(), KNOBS)
    assert FILE + "\n[blend]\n" == path.read_text()


@pytest.mark.parametrize("tables", ["worth = {min_new_rows = 5}", "worth.min_new_rows = 5"])
def test_a_form_that_is_not_edited_is_refused_with_what_to_write(
    tables: str, tmp_path: Path
) -> None:
    """The knobs that were found are not lost with it."""
    path = tmp_path / "prices.toml"
    text = f"{tables}\n{FILE.partition('[worth]')[0]}"
    path.write_text(text)
    with pytest.raises(BadConfiguration, match=r"worth\.min_new_rows = 100"):
        tune.write(path, text.encode(), KNOBS)
    assert text == path.read_text()


def test_a_trial_is_a_run_of_the_product(tmp_path: Path) -> None:
    """Knobs that allow no second retrain spend less, and the first trial is the file's own."""
    path = make_pipeline(tmp_path, 1_000)
    tried = [{}, {"worth.min_new_rows": 100_000}]
    config = LabConfig(records_per_s=0.0)
    found = crew.done(tune.works(tmp_path / "home", [path], config, tried), jobs=1)
    assert found[0]["retrains"] > found[1]["retrains"] == 1
    again = crew.done(tune.works(tmp_path / "home", [path], config, tried), jobs=1)
    assert found == again
