"""HOME/thermodrift.toml: nothing of it is needed; a mistake in it is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.energy_cost import Tariff
from observability.history import home_config
from observability.history.home_config import HomeFile
from observability.history.store import History


def read(home: Path, text: str) -> HomeFile:
    """What a home's file of this text says."""
    (home / "thermodrift.toml").write_text(text, encoding="utf-8")
    return home_config.read(Places(home))


def test_a_home_needs_no_file(tmp_path: Path) -> None:
    """Without one everything is kept, in a DuckDB file."""
    assert HomeFile() == home_config.read(Places(tmp_path))
    assert HomeFile() == read(tmp_path, "")
    assert (None, None) == (HomeFile().history.url, HomeFile().upkeep.keep_days)


def test_what_a_person_wrote_is_what_counts(tmp_path: Path) -> None:
    """Every table of the file reaches the door that uses it."""
    text = "[upkeep]\nkeep_days = 90\nreadings_keep_days = 7\npredictions_keep = 500_000\n"
    rules = read(tmp_path, text).upkeep
    assert (90, 7, 500_000) == (rules.keep_days, rules.readings_keep_days, rules.predictions_keep)
    assert rules == History(tmp_path).upkeep


def test_what_energy_costs_reaches_whoever_writes_history(tmp_path: Path) -> None:
    """Prices and grams are rows of it; without the table they are unknown."""
    assert (None, None, 1.0) == (
        HomeFile().energy.price_per_kwh,
        HomeFile().energy.carbon_g_per_kwh,
        HomeFile().energy.pue,
    )
    text = "[energy]\nprice_per_kwh = 0.31\ncurrency = 'CHF'\ncarbon_g_per_kwh = 45\npue = 1.3\n"
    rates = read(tmp_path, text).energy
    assert Tariff(price_per_kwh=0.31, currency="CHF", carbon_g_per_kwh=45.0, pue=1.3) == rates
    assert rates == History(tmp_path).rates


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[upkeep]\nkeep_day = 90", "upkeep.keep_day: there is no such key; allowed here: keep_d"),
        ("[upkeep]\nkeep_days = 0", "upkeep.keep_days: Input should be greater.*came: 0"),
        (
            "[histroy]\n",
            "histroy: there is no such key; allowed here: energy, history, metrics, serve, upkeep",
        ),
        ("[history]\nurl = 'mysql://h/d'\ndata = 'd'", "history.url: String should match"),
        ("[history]\ndata = 'd'", "history: url and data go together"),
        ("[history]\nurl = 'postgresql://h/d'", "history: url and data go together"),
        (
            "[energy]\npue = 0.9",
            "energy.pue: Input should be greater than or equal to 1; came: 0.9",
        ),
        ("[energy]\ncurrency = 'euro'", "energy.currency: String should match.*came: 'euro'"),
        ("upkeep", "not TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, says: str) -> None:
    """File, key, what was allowed and what came; the exit code is that of bad configuration."""
    with pytest.raises(BadConfiguration, match=says) as error:
        read(tmp_path, text)
    assert "thermodrift.toml" in str(error.value)
    with pytest.raises(BadConfiguration):
        History(tmp_path)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_mistake_beside_a_password_does_not_tell_it(tmp_path: Path, scheme: str) -> None:
    """A message ends in logs and in mails to others."""
    with pytest.raises(BadConfiguration, match=r"came: .*://me:\*\*\*@host/history") as error:
        read(tmp_path, f"[history]\nurl = '{scheme}://me:secret@host/history'\n")
    assert "secret" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Bytes that are no text are a mistake like any other."""
    (tmp_path / "thermodrift.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfiguration, match="the home's file cannot be read"):
        home_config.read(Places(tmp_path))
