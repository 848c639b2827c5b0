"""The desk of the models says what there is, and moves the crown only where it is told to."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from models.cli import models_app
from models.persistence import checkpoint
from models.persistence.signing import SigningKey
from models.registry import registry
from models.registry.registry import NoEarlierChampion, Registry
from observability.core.cli_output import CliContext
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.history.store import History
from tests.models.makers import NOW, put


def home_of(folder: Path) -> Path:
    """The home under `folder`."""
    return folder / "home"


def make_home(folder: Path, *pipelines: str) -> Registry:
    """A home with these pipelines, v1 and v2 stored in the first and v1 crowned."""
    places = Places(home_of(folder))
    for name in pipelines:
        places.pipeline(name).root.mkdir(parents=True)
    kept = Registry(places.pipeline(pipelines[0]), SigningKey.open(places.key))
    for minute, version in enumerate(["v1", "v2"]):
        put(kept, version, pipeline=pipelines[0], created_at=NOW + timedelta(minutes=minute))
    kept.promote("v1", "first")
    return kept


def run(folder: Path, *words: str) -> Result:
    """Run ``models WORDS`` in the home under `folder`; an error of ours comes out as it is."""
    surroundings = CliContext(home=home_of(folder))
    result = CliRunner().invoke(models_app, list(words), obj=surroundings)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ask(folder: Path, *words: str) -> Any:
    """The JSON document that ``models WORDS --json`` answers."""
    return json.loads(run(folder, *words, "--json").stdout)


def recorded(folder: Path) -> list[dict[str, Any]]:
    """What the history knows of models."""
    rows: list[dict[str, Any]] = History(home_of(folder)).ask("SELECT * FROM models").to_pylist()
    return rows


def test_ls_answers_every_manifest_and_who_serves(tmp_path: Path) -> None:
    """Oldest first, as JSON with all keys."""
    kept = make_home(tmp_path, "elec2")
    found = ask(tmp_path, "ls", "elec2")
    assert [("v1", True), ("v2", False)] == [(each["version"], each["champion"]) for each in found]
    assert kept.manifest("v2").model_dump(mode="json") | {"champion": False} == found[1]


def test_ls_is_a_table_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions, the champion and the loss that it was crowned for."""
    monkeypatch.setenv("COLUMNS", "200")
    make_home(tmp_path, "elec2")
    lines = [line for line in run(tmp_path, "ls").stdout.splitlines() if "linear" in line]
    assert ["champion" in line for line in lines] == [True, False]
    assert all("0.25" in line for line in lines)


def test_an_empty_pipeline_has_an_empty_list(tmp_path: Path) -> None:
    """Before the first retrain there is nothing wrong."""
    (home_of(tmp_path) / "pipelines" / "elec2").mkdir(parents=True)
    assert [] == ask(tmp_path, "ls")
    assert [] == ask(tmp_path, "verify")


def test_a_score_that_is_unknown_shows_as_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number is made up for people either."""
    monkeypatch.setenv("COLUMNS", "200")
    put(
        make_home(tmp_path, "elec2"),
        "v3",
        scores={"holdout:challenger": {"accuracy": float("nan")}},
    )
    line = next(line for line in run(tmp_path, "ls").stdout.splitlines() if "v3" in line)
    assert " - " in line


def test_show_answers_the_champion_or_the_version_asked_for(tmp_path: Path) -> None:
    """With and without the pipeline's name."""
    make_home(tmp_path, "elec2")
    assert "v1" == ask(tmp_path, "show")["version"]
    assert "v1" == ask(tmp_path, "show", "elec2")["version"]
    assert "v2" == ask(tmp_path, "show", "v2")["version"]
    assert "v2" == ask(tmp_path, "show", "elec2", "v2")["version"]


def test_show_for_people_has_scores_and_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every score of every contestant stands on a line of its own."""
    monkeypatch.setenv("COLUMNS", "200")
    kept = make_home(tmp_path, "elec2")
    text = run(tmp_path, "show").stdout
    assert kept.manifest("v1").sha256 in text
    assert any("log_loss" in line and "0.5" in line for line in text.splitlines())


def test_show_without_a_champion_says_so(tmp_path: Path) -> None:
    """And says what to do."""
    (home_of(tmp_path) / "pipelines" / "elec2").mkdir(parents=True)
    with pytest.raises(BadConfiguration, match="no champion yet"):
        run(tmp_path, "show")


def test_verify_goes_through_all_versions_and_fails_for_one(tmp_path: Path) -> None:
    """A damaged one is named with its reason, the others are still looked at; exit code 1."""
    kept = make_home(tmp_path, "elec2")
    assert 0 == run(tmp_path, "verify").exit_code
    (kept._folder / "v1.model").write_bytes(b"")
    result = run(tmp_path, "verify", "--json")
    assert 1 == result.exit_code
    verdicts = json.loads(result.stdout)
    assert [("v1", False), ("v2", True)] == [(each["version"], each["valid"]) for each in verdicts]
    assert "changed or damaged" in verdicts[0]["because"]
    assert [True] == [each["valid"] for each in ask(tmp_path, "verify", "v2")]
    assert 1 == run(tmp_path, "verify", "elec2", "v1").exit_code


def test_promote_moves_the_promotion_and_tells_the_history(tmp_path: Path) -> None:
    """The row says that it was done by hand, and which model it was."""
    kept = make_home(tmp_path, "elec2")
    assert {"champion": "v2", "before": "v1"} == ask(tmp_path, "promote", "elec2", "v2")
    assert "v2" == kept.champion()
    (row,) = recorded(tmp_path)
    assert ("elec2", "v2", True) == (row["pipeline"], row["version"], row["champion"])
    assert kept.manifest("v2").sha256 == row["sha256"]
    assert "promoted by hand; before: v1" == row["because"]


def test_rollback_brings_the_earlier_champion_back_and_tells_the_history(tmp_path: Path) -> None:
    """Each call is a wish of its own: a second one goes back no further than there is."""
    kept = make_home(tmp_path, "elec2")
    kept.promote("v2", "second")
    assert {"champion": "v1", "before": "v2"} == ask(tmp_path, "rollback")
    (row,) = recorded(tmp_path)
    assert ("v1", True) == (row["version"], row["champion"])
    assert "rolled back by hand from v2" == row["because"]
    with pytest.raises(NoEarlierChampion):
        run(tmp_path, "rollback", "elec2")
    assert 1 == len(recorded(tmp_path))


@pytest.mark.parametrize(
    ("found", "expected"), [({"position": 900}, 900), ({}, 300), (b"damaged", 300), (None, 300)]
)
def test_a_hand_acts_at_the_position_where_the_stream_stands(
    tmp_path: Path, found: dict[str, object] | bytes | None, expected: int
) -> None:
    """As the checkpoint says; without one that can be read, as far as the model has seen."""
    make_home(tmp_path, "elec2")
    places = Places(home_of(tmp_path))
    file = places.pipeline("elec2").checkpoint
    if isinstance(found, bytes):
        file.write_bytes(found)
    elif found is not None:
        checkpoint.save(file, "the state", SigningKey.open(places.key), found)
    run(tmp_path, "promote", "v2")
    (row,) = recorded(tmp_path)
    assert expected == row["serves_from"]


def test_people_are_told_who_serves(tmp_path: Path) -> None:
    """One sentence, without --json."""
    make_home(tmp_path, "elec2")
    said = run(tmp_path, "promote", "v2").stdout
    assert "v2 serves from now on; before: v1" == said.strip()


def test_promote_wants_a_version(tmp_path: Path) -> None:
    """A pipeline alone is not enough, and nothing moves."""
    kept = make_home(tmp_path, "elec2")
    with pytest.raises(BadConfiguration, match="which version of 'elec2'"):
        run(tmp_path, "promote", "elec2")
    assert 2 == run(tmp_path, "promote").exit_code
    assert "v1" == kept.champion()


def test_a_pipeline_file_names_its_pipeline(tmp_path: Path) -> None:
    """What is run with a file is asked about with the same file."""
    make_home(tmp_path, "elec2", "other")
    file = tmp_path / "of-another-name.toml"
    file.write_text('[pipeline]\nname = "elec2"\n')
    assert "v2" == ask(tmp_path, "show", str(file), "v2")["version"]
    assert "v1" == ask(tmp_path, "show", str(file))["version"]


@pytest.mark.parametrize("text", [None, "[pipeline", "[pipeline]\n", "pipeline = 1\n"])
def test_a_file_without_a_name_is_refused(tmp_path: Path, text: str | None) -> None:
    """Missing, broken or without its key: the file is named."""
    make_home(tmp_path, "elec2")
    file = tmp_path / "elec2.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadConfiguration, match=r"elec2\.toml does not say \[pipeline\] name"):
        run(tmp_path, "ls", str(file))


def test_of_several_pipelines_one_must_be_named(tmp_path: Path) -> None:
    """The message lists them; a word that is none of them is said so."""
    make_home(tmp_path, "elec2", "other")
    with pytest.raises(BadConfiguration, match=r"has elec2, other$"):
        run(tmp_path, "ls")
    with pytest.raises(BadConfiguration, match="'v1' is none of them"):
        run(tmp_path, "show", "v1")
    assert "v1" == ask(tmp_path, "show", "elec2")["version"]


@pytest.mark.parametrize("words", [["ls"], ["show"], ["verify"], ["rollback"], ["promote", "v1"]])
def test_an_empty_home_is_said_so(tmp_path: Path, words: list[str]) -> None:
    """Nothing was run yet, and asking makes no key."""
    with pytest.raises(BadConfiguration, match="none yet"):
        run(tmp_path, *words)
    assert not home_of(tmp_path).exists()


@pytest.mark.parametrize(
    ("name", "reason"), [("nobody", "no pipeline 'nobody'; there are: elec2"), ("../x", "1 to 63")]
)
def test_a_pipeline_that_is_not_there_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    """A name is looked up, never followed as a path."""
    make_home(tmp_path, "elec2")
    with pytest.raises(BadConfiguration, match=reason):
        run(tmp_path, "show", name, "v1")


def test_too_many_words_are_refused(tmp_path: Path) -> None:
    """A third word means a mistake."""
    make_home(tmp_path, "elec2")
    with pytest.raises(BadConfiguration, match="came: elec2 v1 v2"):
        run(tmp_path, "show", "elec2", "v1", "v2")


def test_a_promotion_that_was_refused_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """History tells what was done."""
    make_home(tmp_path, "elec2")
    here = registry.libraries()
    monkeypatch.setattr(registry, "libraries", lambda: here | {"numpy": "9.9.9"})
    with pytest.raises(registry.OtherLibraries):
        run(tmp_path, "promote", "v2")
    assert not History(home_of(tmp_path))._places.outbox.exists()
