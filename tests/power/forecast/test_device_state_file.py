"""What is known of devices outlives the run that learned it, and is never in its way."""

from __future__ import annotations

from pathlib import Path

from power.forecast import device_state_file
from power.forecast.forecast import ThermalState
from tests.power.forecast.test_forecast import KNOWN, LIFE, followed


def test_what_was_learned_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    """The next run begins with it."""
    device_state_file.save(tmp_path / "devices", {"GPU-a": KNOWN, "GPU-b": ThermalState()})
    assert {"GPU-a": KNOWN, "GPU-b": ThermalState()} == device_state_file.load(tmp_path / "devices")


def test_nothing_kept_is_nothing_known(tmp_path: Path) -> None:
    """No folder, no error."""
    assert {} == device_state_file.load(tmp_path / "devices")


def test_who_learned_from_more_readings_is_kept(tmp_path: Path) -> None:
    """A short run beside a long one takes nothing away."""
    short = followed(*LIFE.readings[:40])
    device_state_file.save(tmp_path, {"GPU-a": KNOWN})
    device_state_file.save(tmp_path, {"GPU-a": short})
    assert {"GPU-a": KNOWN} == device_state_file.load(tmp_path)


def test_a_model_of_another_sensor_gives_way_however_much_it_learned(tmp_path: Path) -> None:
    """Where margins are counted from something else now, the old gains are of no use."""
    began_anew = followed(*LIFE.readings[:40])
    other = began_anew.model_copy(
        update={"model": began_anew.model.model_copy(update={"margin_source": "maximum"})}
    )
    device_state_file.save(tmp_path, {"GPU-a": KNOWN})
    device_state_file.save(tmp_path, {"GPU-a": other})
    assert {"GPU-a": other} == device_state_file.load(tmp_path)


def test_a_damaged_file_is_learned_again(tmp_path: Path) -> None:
    """It is left out, and the next save replaces it."""
    device_state_file.save(tmp_path, {"GPU-a": KNOWN})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert {} == device_state_file.load(tmp_path)
    device_state_file.save(tmp_path, {"GPU-a": KNOWN})
    assert {"GPU-a": KNOWN} == device_state_file.load(tmp_path)
