"""A thermal model of a device: how the power that it uses changes its margin, fitted to readings.

Pure: the next reading goes in, the next model comes out. It decides nothing; `forecast` uses it.

The model is a Foster network, the standard reduction of a thermal path to a row of RC pairs: the
loss of margin is a constant (the ambient air) plus, for each time constant of a fixed grid, a gain
times the power smoothed with that time constant. The model is linear in its unknowns, so a Kalman
filter fits it exactly, reading by reading, with standard errors. Without drift that is ridge
regression; with drift, older readings slowly lose weight.

The heat that was in the device before the first reading is unknown too. It decays with the same
time constants, so there is one more unknown per time constant, which vanishes as it decays.

The model describes the gate's margin (degrees left, `device_readings.margin`), not the temperature:
some devices report only the margin, and the gate decides by it. Gains are stored in degrees at a
reference power, so that they are of similar size for a laptop and a server.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from power.core import device_readings
from power.core.device_readings import DeviceReading, plausible, plausible_j
from power.core.frozen_model import FiniteModel, FrozenModel
from power.core.gate_config import GateConfig

Array = NDArray[np.float64]

TAU_S: Final = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""The time constants of the grid, seconds: from a die to a heavy heatsink."""

_TAU: Final = np.array(TAU_S)
_PAIRS: Final = len(TAU_S)
_SIZE: Final = 1 + 2 * _PAIRS
_GAINS: Final = slice(1, 1 + _PAIRS)
_REMAINS: Final = slice(1 + _PAIRS, _SIZE)
_LEAST_REFERENCE_W: Final = 10.0
_PRIOR_AIR_C: Final = 40.0
_PRIOR_GAIN_C: Final = 20.0
_PRIOR_C2: Final = np.array([_PRIOR_AIR_C**2] + [_PRIOR_GAIN_C**2] * (_SIZE - 1))


class ThermalConfig(FiniteModel):
    """The table [forecast.thermal]: the assumptions about a device before it is read."""

    noise_c: float = Field(default=1.0, ge=0.05, le=20, description="Standard error of a reading.")
    ambient_drift_c: float = Field(
        default=1.5, ge=0, le=50, description="How far the air's temperature may drift in an hour."
    )
    gain_drift_c: float = Field(
        default=0.3,
        ge=0,
        le=50,
        description="How far each gain may drift in an hour, at reference power: fans, dust.",
    )
    unmodelled_c: float = Field(
        default=0.3,
        ge=0,
        le=20,
        description="Heat of each time constant that does not come from the device's power.",
    )
    gap_s: float = Field(
        default=120.0,
        gt=0,
        le=3600,
        description="After a longer time without readings the device's heat is unknown.",
    )
    misfit_errors: float = Field(
        default=6.0,
        ge=3,
        le=100,
        description="A reading that is off by more standard errors is not learned from.",
    )
    misfits_in_a_row: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="After so many of them in a row, heat and air count as unknown.",
    )


class ThermalModel(FrozenModel):
    """The model of one device. A new one is empty. JSON stores it without loss."""

    margin_source: str | None = Field(default=None, description="The source of its margins.")
    reference_w: float = Field(default=0.0, description="Power that the gains refer to, watts.")
    read_at_s: float | None = Field(default=None, description="When it was last read, seconds.")
    began_s: float = Field(default=0.0, description="When the heat in it was last unknown.")
    power_w: float = Field(default=0.0, description="The last power that was read, watts.")
    energy_j: float | None = Field(default=None, description="The counter's last value, joules.")
    smoothed_w: tuple[float, ...] = Field(
        default=(0.0,) * _PAIRS, description="Power smoothed with each time constant, watts."
    )
    values: tuple[float, ...] = Field(
        default=(), description="Estimate: loss of margin at no power, gains, remaining heat; °C."
    )
    covariance: tuple[float, ...] = Field(default=(), description="Its covariance by rows, °C².")
    readings: int = Field(default=0, description="Readings learned from.")
    in_a_row: int = Field(default=0, description="Of these, since it was last unsettled.")
    misfits: int = Field(default=0, description="Readings in a row that did not fit.")


class Outlook(NamedTuple):
    """Expected margins and their standard errors, degrees; both have the same shape."""

    margin_c: Array
    standard_error_c: Array


class ConstrainedEstimate(NamedTuple):
    """The model's estimate with no gain below zero: values (°C) and covariance (°C²)."""

    values: Array
    covariance: Array


def learn(
    model: ThermalModel,
    reading: DeviceReading,
    gate_config: GateConfig,
    thermal_config: ThermalConfig,
) -> ThermalModel:
    """Return the model after one more reading of its device.

    A reading without a plausible power changes nothing, one without a plausible margin changes only
    the smoothed power; after either, `in_a_row` counts anew. A reading without a finite time is
    ignored, and a repeated one counts once.
    """
    power_w = plausible(reading.power_w, "power_w")
    if not math.isfinite(reading.read_at_s) or reading.read_at_s == model.read_at_s:
        return model
    if power_w is None:
        return model.model_copy(update={"in_a_row": 0})
    margin_c, margin_source = device_readings.margin(reading, gate_config)
    margin_c = plausible(margin_c, "margin_c")
    if model.read_at_s is None or (margin_c is not None and margin_source != model.margin_source):
        if margin_c is None:
            return model
        model = _fresh(reading, power_w, margin_source)
    over_s = reading.read_at_s - (model.read_at_s or 0.0)
    if over_s < 0 or over_s > thermal_config.gap_s:
        # After a restart of the clock it is unknown for how long nothing was read.
        hours = max(over_s, 3600.0) / 3600
        model = _after_silence(
            model, reading.read_at_s, power_w, thermal_config.ambient_drift_c**2 * hours
        )
        over_s = 0.0
    return _learned(model, reading, power_w, margin_c, over_s, thermal_config)


def estimate(model: ThermalModel) -> ConstrainedEstimate:
    """Return the estimate under the constraint that power cannot cool a device.

    Gains of neighbouring time constants are hard to distinguish, so some are estimated below zero.
    The lowest is set to zero and the rest are conditioned on that, until none is below zero.
    """
    values, covariance = _arrays(model)
    for _ in range(_PAIRS):
        lowest = 1 + int(np.argmin(values[_GAINS]))
        if values[lowest] >= 0:
            break
        share = covariance[:, lowest] / covariance[lowest, lowest]
        values = values - share * values[lowest]
        covariance = covariance - np.outer(share, covariance[lowest])
        values[lowest] = 0.0
        covariance[lowest, :] = covariance[:, lowest] = 0.0
    return ConstrainedEstimate(values, covariance)


def outlook(
    model: ThermalModel,
    known: ConstrainedEstimate,
    powers_w: tuple[float, float],
    spread_w: float,
    waits_s: Array,
    seconds: Array,
    thermal_config: ThermalConfig,
) -> Outlook:
    """Predict margins at `seconds` into a job that begins after `waits_s`; both are broadcast.

    `powers_w` are used while waiting and in the job; `spread_w` is the standard error of the job's
    power, watts. The result has the broadcast shape.
    """
    waiting_w, job_w = powers_w
    smoothed = np.array(model.smoothed_w)
    waits, into = np.broadcast_arrays(waits_s, seconds)
    at_start = waiting_w + (smoothed - waiting_w) * np.exp(-waits[..., None] / _TAU)
    decay = np.exp(-into[..., None] / _TAU)
    powers = job_w + (at_start - job_w) * decay
    remains = np.exp(-(waits + into)[..., None] / _TAU)
    sees = np.concatenate(
        (np.ones((*waits.shape, 1)), powers / model.reference_w, remains), axis=-1
    )
    per_watt = ((1 - decay) @ known.values[_GAINS]) / model.reference_w
    variance = np.sum(sees @ known.covariance * sees, axis=-1)
    variance = np.maximum(variance, 0.0) + (per_watt * spread_w) ** 2
    variance += thermal_config.ambient_drift_c**2 * (waits + into) / 3600
    variance += thermal_config.unmodelled_c**2 * np.sum(1 - remains**2, axis=-1)
    return Outlook(-(sees @ known.values), np.sqrt(variance))


def margin_since(model: ThermalModel, values: tuple[float, ...], over_s: float) -> float:
    """Return the margin now by `values`, estimated `over_s` seconds ago, and the power since."""
    powers = np.array(model.smoothed_w) / model.reference_w
    guessed = np.array(values)
    heat_c = guessed[0] + guessed[_GAINS] @ powers + guessed[_REMAINS] @ np.exp(-over_s / _TAU)
    return float(-heat_c)


def _fresh(reading: DeviceReading, power_w: float, margin_source: str) -> ThermalModel:
    """Return the prior model, wide enough for any computer."""
    limit_w = plausible(reading.power_limit_w, "power_limit_w") or 0.0
    values = np.zeros(_SIZE)
    values[0], values[_GAINS] = -50.0, 60.0 / _PAIRS
    return ThermalModel(
        margin_source=margin_source,
        reference_w=max(limit_w, power_w, _LEAST_REFERENCE_W),
        read_at_s=reading.read_at_s,
        began_s=reading.read_at_s,
        power_w=power_w,
        smoothed_w=(power_w,) * _PAIRS,
        values=tuple(values.tolist()),
        covariance=tuple(np.diag(_PRIOR_C2).ravel().tolist()),
    )


def _after_silence(
    model: ThermalModel, at_s: float, power_w: float, drifted_c2: float
) -> ThermalModel:
    """Keep the gains, forget the heat in the device, and let the air drift."""
    values, covariance = _arrays(model)
    values[_REMAINS] = 0.0
    covariance[_REMAINS, :] = covariance[:, _REMAINS] = 0.0
    covariance[_REMAINS, _REMAINS] = np.eye(_PAIRS) * _PRIOR_GAIN_C**2
    covariance[0, 0] = min(covariance[0, 0] + drifted_c2, _PRIOR_AIR_C**2)
    return _begun(model, at_s, power_w, values, covariance)


def _begun(
    model: ThermalModel, at_s: float, power_w: float, values: Array, covariance: Array
) -> ThermalModel:
    return model.model_copy(
        update={
            "read_at_s": at_s,
            "began_s": at_s,
            "power_w": power_w,
            "energy_j": None,
            "smoothed_w": (power_w,) * _PAIRS,
            "values": tuple(values.tolist()),
            "covariance": tuple(covariance.ravel().tolist()),
            "in_a_row": 0,
            "misfits": 0,
        }
    )


def _learned(
    model: ThermalModel,
    reading: DeviceReading,
    power_w: float,
    margin_c: float | None,
    over_s: float,
    thermal_config: ThermalConfig,
) -> ThermalModel:
    mean_w = _mean_w(model, reading, power_w, over_s)
    decay = np.exp(-over_s / _TAU)
    smoothed = mean_w + (np.array(model.smoothed_w) - mean_w) * decay
    values, covariance = _passed(model, decay, over_s, thermal_config)
    update = {
        "read_at_s": reading.read_at_s,
        "power_w": power_w,
        "energy_j": plausible_j(reading.energy_j),
        "smoothed_w": tuple(smoothed.tolist()),
    }
    counts = {"readings": model.readings, "in_a_row": model.in_a_row, "misfits": model.misfits}
    if margin_c is None:
        counts["in_a_row"] = 0
    else:
        sees = np.concatenate(((1.0,), smoothed / model.reference_w, np.ones(_PAIRS)))
        fit = _fitted(values, covariance, sees, -margin_c, thermal_config)
        if fit is None and model.misfits + 1 >= thermal_config.misfits_in_a_row:
            # The device has changed: its gains are kept, but only as a first guess.
            values, _ = _arrays(model)
            values[_REMAINS] = 0.0
            return _begun(model, reading.read_at_s, power_w, values, np.diag(_PRIOR_C2))
        if fit is None:
            counts |= {"in_a_row": 0, "misfits": model.misfits + 1}
        else:
            values, covariance = fit
            counts = {"readings": model.readings + 1, "in_a_row": model.in_a_row + 1, "misfits": 0}
    update |= {
        "values": tuple(values.tolist()),
        "covariance": tuple(covariance.ravel().tolist()),
    }
    return model.model_copy(update=update | counts)


def _mean_w(model: ThermalModel, reading: DeviceReading, power_w: float, over_s: float) -> float:
    """Return the mean power since the last reading: the counter's, else that of both readings.

    An instantaneous power reading covers a quarter of the time on some devices, the counter all.
    """
    now_j = plausible_j(reading.energy_j)
    if over_s > 0 and now_j is not None and model.energy_j is not None:
        counted_w = plausible((now_j - model.energy_j) / over_s, "power_w")
        if counted_w is not None:
            return counted_w
    return (model.power_w + power_w) / 2


def _passed(
    model: ThermalModel, decay: Array, over_s: float, thermal_config: ThermalConfig
) -> tuple[Array, Array]:
    """Predict values and covariance `over_s` seconds later: remains decay, the rest drifts."""
    values, covariance = _arrays(model)
    values[_REMAINS] *= decay
    covariance[_REMAINS, :] *= decay[:, None]
    covariance[:, _REMAINS] *= decay
    hours = over_s / 3600
    variances = covariance.ravel()[:: _SIZE + 1]
    # No variance grows beyond its prior.
    if variances[0] < _PRIOR_AIR_C**2:
        variances[0] += thermal_config.ambient_drift_c**2 * hours
    gains = variances[_GAINS]
    gains[gains < _PRIOR_GAIN_C**2] += thermal_config.gain_drift_c**2 * hours
    variances[_REMAINS] += thermal_config.unmodelled_c**2 * (1 - decay**2)
    return values, covariance


def _fitted(
    values: Array, covariance: Array, sees: Array, heat_c: float, thermal_config: ThermalConfig
) -> tuple[Array, Array] | None:
    """Update values and covariance by one reading (Kalman); None if the reading does not fit."""
    toward = covariance @ sees
    variance = float(sees @ toward) + thermal_config.noise_c**2
    error_c = heat_c - float(sees @ values)
    if abs(error_c) > thermal_config.misfit_errors * math.sqrt(variance):
        return None
    values = values + toward * (error_c / variance)
    covariance = covariance - np.outer(toward, toward) / variance
    # Rounding errors must not make the matrix asymmetric or a variance negative.
    covariance = (covariance + covariance.T) / 2
    diagonal = covariance.ravel()[:: _SIZE + 1]
    np.maximum(diagonal, 1e-9, out=diagonal)
    return values, covariance


def _arrays(model: ThermalModel) -> tuple[Array, Array]:
    return np.array(model.values), np.array(model.covariance).reshape(_SIZE, _SIZE)
