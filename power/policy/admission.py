"""Decide whether a job may begin now, on which device, and if not, when to ask again.

Pure: it joins the gate's memory of each device with the forecast of the job on it, and places the
job. Of several devices that would take the job, it chooses the one with the most headroom at the
job's hottest moment; a device with a trusted forecast comes before one that only the thermostat
admits. A device that is leased to another job does not count, however cool it is: the other job may
need its headroom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from observability.core.decision import Decision
from power.core import device_readings
from power.core.gate_config import GateConfig
from power.forecast import forecast
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ThermalState
from power.forecast.job_profile import Job
from power.policy import gate
from power.policy.gate import DeviceState, GateResult

QUESTION = "admission"


class Candidate(NamedTuple):
    """One device, and the answer for the job on it."""

    uuid: str
    decision: Decision
    headroom_c: float
    """Degrees left at the job's hottest moment if the forecast is trusted, else now."""
    by_forecast: bool
    ready_in_s: float | None
    """Seconds until the forecast admits the job, perhaps only at rest; None if it never does."""


def judge(
    gated: GateResult,
    known: Mapping[str, ThermalState],
    job: Job | None,
    gate_config: GateConfig,
    forecast_config: ForecastConfig,
    now_s: float,
    leased: Mapping[str, str],
) -> Decision:
    """Decide whether the job may begin at `now_s`; a yes names its device in ``facts["uuid"]``.

    `gated` is the gate's answer with its memory, `known` what the forecast knows by device, and
    `leased` the holder of each leased device. Without devices the gate's answer counts, and
    ``uuid`` is None. A no has ``again_in_s`` where a forecast says when it would be a yes.
    """
    found = candidates(gated, known, job, gate_config, forecast_config, now_s)
    if not found:
        facts = {**gated.decision.facts, "uuid": None, "devices": 0, "again_in_s": None}
        return gated.decision.model_copy(update={"question": QUESTION, "facts": facts})
    free = [each for each in found if each.uuid not in leased]
    best = max(
        free or found, key=lambda each: (each.decision.yes, each.by_forecast, each.headroom_c)
    )
    yes, because = best.decision.yes, best.decision.because
    cause = best.decision.facts.get("cause")
    if yes and best.uuid in leased:
        yes, cause = False, "leased"
        because = f"{best.uuid} would take it and is leased to {leased[best.uuid]}"
    if len(found) > 1:
        because += f" (the best of {len(found)} devices, {len(found) - len(free)} of them leased)"
    # A device that is ready by the forecast and still closed: no forecast says when that ends.
    waits_s = [each.ready_in_s for each in free if each.ready_in_s]
    return Decision(
        question=QUESTION,
        yes=yes,
        because=because,
        facts={
            **best.decision.facts,
            "uuid": best.uuid,
            "headroom_c": best.headroom_c,
            "devices": len(found),
            "devices_leased": len(found) - len(free),
            "again_in_s": None if yes else min(waits_s, default=None),
            "cause": cause,
        },
    )


def candidates(
    gated: GateResult,
    known: Mapping[str, ThermalState],
    job: Job | None,
    gate_config: GateConfig,
    forecast_config: ForecastConfig,
    now_s: float,
) -> list[Candidate]:
    """Return every device that counts with its own answer; none if the gate read none."""
    if gated.decision.facts.get("driver") != "present":
        return []
    # A margin at which the thermal guard would pause the job is not enough to plan with.
    keep_c = max(forecast_config.keep_margin_c, gate_config.pause_margin_c)
    forecast_config = forecast_config.model_copy(update={"keep_margin_c": keep_c})
    return [
        _candidate(
            each,
            gated,
            known.get(each.uuid, ThermalState()),
            job,
            gate_config,
            forecast_config,
            now_s,
        )
        for each in gated.state.devices
        if each.answers_to(gate_config.uuid)
    ]


def capped(
    judged: Callable[[Job], Decision],
    job: Job,
    exponent: float,
    caps_w: Sequence[float],
    refused: Decision,
) -> tuple[float, Decision] | None:
    """Find the mildest of `caps_w` (watts) with which the job begins now and ends sooner.

    "Sooner" compares with waiting for an admission without a cap: `refused` is the no to that, and
    its forecast says how long it would wait; an untrusted one finds no cap. `judged` asks again for
    a job that is slower by `exponent` (`Job.capped`).
    """
    if refused or refused.facts.get("forecast_trusted") is not True:
        return None
    again_in_s = refused.facts["again_in_s"]
    waiting_s = math.inf if again_in_s is None else float(again_in_s) + job.seconds
    for cap_w in sorted(caps_w, reverse=True):
        slower = job.capped(cap_w, exponent)
        if slower.seconds >= waiting_s:
            return None
        if decision := judged(slower):
            return cap_w, decision
    return None


def leased_elsewhere(decision: Decision, uuid: str, holder: str) -> Decision:
    """Turn a yes into a no, because `holder` has taken the lease of the device meanwhile."""
    because = f"{uuid} is leased to {holder}; {decision.because}"
    facts = {**decision.facts, "cause": "leased"}
    return decision.model_copy(update={"yes": False, "because": because, "facts": facts})


def keeps_device(
    done: float, paused_s: float, answer: Decision, gate_config: GateConfig
) -> Decision:
    """May a fit that waits keep its device? `answer` is the gate's no for which it was paused.

    `done` is the share of the fit that is done, `paused_s` how long it has been waiting.
    """
    waited = f"paused for {paused_s:.0f} s of at most {gate_config.max_pause_s:g} s (max_pause_s)"
    may = paused_s < gate_config.max_pause_s
    ends = "waits on" if may else "gives the device back"
    because = f"a fit that was {done:.0%} done {waited} and {ends}: {answer.because}"
    facts = {"cause": answer.facts.get("cause")}
    return Decision(question="guard", yes=may, because=because, facts=facts)


def given_back(because: str, cause: str | None) -> Decision:
    """The no to a job that was running, when its guard gave the device back."""
    return Decision(question="guard", yes=False, because=because, facts={"cause": cause})


def force_admit(decision: Decision, why: Decision) -> Decision:
    """Turn a placement into a yes, because `why` says that the job begins in any case."""
    facts = {**decision.facts, "admission": decision.yes, "again_in_s": None, "cause": None}
    because = f"{why.because}; by itself it would be a no: {decision.because}"
    return Decision(question=QUESTION, yes=True, because=because, facts=facts)


def _candidate(
    device: DeviceState,
    gated: GateResult,
    thermal_state: ThermalState,
    job: Job | None,
    gate_config: GateConfig,
    forecast_config: ForecastConfig,
    now_s: float,
) -> Candidate:
    alone = GateResult(gate.device_decision(device, gate_config, now_s), gated.state)
    predicted = forecast.judge(thermal_state, job, gate_config, forecast_config, now_s)
    foretold = predicted.facts["trusted"] is True
    ready_in_s = predicted.facts.get("ready_in_s")
    decision = admit(alone, predicted, gate_config)
    if not decision and ready_in_s is None and (foretold or alone.decision.yes):
        # No wait makes the job safe, and it must not be deferred for ever: it may begin with the
        # device at rest, if the gate is open. While it runs, the thermal guard pauses it if needed.
        rest = forecast.at_rest(thermal_state, gate_config, forecast_config, now_s)
        if alone.decision.yes:
            facts = {**decision.facts, "rest": rest.yes}
            because = f"{decision.because}; it may begin with the device at rest: {rest.because}"
            if rest:
                because = f"no wait makes it better, and the device is at rest: {decision.because}"
                facts["cause"] = None
            decision = decision.model_copy(
                update={"yes": rest.yes, "because": because, "facts": facts}
            )
        if not decision:
            ready_in_s = rest.facts.get("rest_in_s")
    margin_c = (
        predicted.facts["sure_margin_c"] if foretold else alone.decision.facts.get("margin_c")
    )
    return Candidate(
        uuid=device.uuid,
        decision=decision,
        headroom_c=float(margin_c) if isinstance(margin_c, int | float) else -math.inf,
        by_forecast=foretold,
        ready_in_s=float(ready_in_s) if foretold and isinstance(ready_in_s, int | float) else None,
    )


def admit(gated: GateResult, thermal_says: Decision, gate_config: GateConfig) -> Decision:
    """Join the gate's answer for a device with the forecast's answer for a job on it.

    An untrusted forecast leaves the answer to the gate. A trusted no is a no. A trusted yes also
    admits the job between pause and resume margin, where the gate would wait for a cooler device.
    """
    gate_says = gated.decision
    facts = {f"gate_{name}": fact for name, fact in gate_says.facts.items()}
    facts |= {f"forecast_{name}": fact for name, fact in thermal_says.facts.items()}
    facts |= {"gate": gate_says.yes, "forecast": thermal_says.yes}
    cause = gate_says.facts.get("cause")
    uuid = gate_says.facts.get("uuid")
    if not isinstance(uuid, str) or thermal_says.facts.get("trusted") is not True:
        yes = gate_says.yes
        because = f"{gate_says.because} ({thermal_says.because})"
    elif not gate_says.yes and not _only_warm(gated, uuid, gate_config):
        yes, because = False, gate_says.because
    else:
        yes, because = thermal_says.yes, thermal_says.because
        # A gate that is closed for heat keeps its cause; an open one leaves it to the forecast.
        cause = cause or "forecast"
    facts["cause"] = None if yes else cause
    return Decision(question=QUESTION, yes=yes, because=because, facts=facts)


def _only_warm(gated: GateResult, uuid: str, gate_config: GateConfig) -> bool:
    """Whether a closed device is closed only because its margin is below the resume margin."""
    device = gated.state.device(uuid)
    reading, age_s = device.trusted, gated.decision.facts.get("age_s")
    if reading is None or reading != device.latest or not isinstance(age_s, float):
        return False
    margin_c = device_readings.margin(reading, gate_config)[0]
    return (
        0 <= age_s <= gate_config.max_age_s
        and margin_c is not None
        and margin_c > gate_config.pause_margin_c
        and not device_readings.closing_reasons(reading.throttle_reasons)
        and not gate.dwells(device, gate_config, reading.read_at_s + age_s)
    )
