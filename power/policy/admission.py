"""May this job begin on this machine now, on which device, and if not, when?

Pure: joins what the gate remembers of each device with what the forecast says of the job on it, and
places the job. Of several devices that would take it, the one with the most headroom at the job's
hottest moment is chosen; one whose forecast is trusted comes before one that only the thermostat
vouches for. A device that is leased to another job is not counted on, however cool it is: its
headroom is spoken for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from observability.core.decision import Decision, Fact
from power.core import device_readings
from power.core.gate_config import GateLimits
from power.forecast import forecast
from power.forecast.config import ForecastRules
from power.forecast.forecast import Known
from power.forecast.job_profile import Job
from power.policy import gate
from power.policy.gate import DeviceState, Judged

QUESTION = "admission"


class Candidate(NamedTuple):
    """One device, and what may become of the job on it."""

    uuid: str
    decision: Decision
    headroom_c: float
    """Degrees left at the job's hottest moment where a trusted forecast tells, else now."""
    foretold: bool
    ready_in_s: float | None
    """Seconds until the forecast would let the job in, be it at rest; None where none says so."""


def judge(
    gated: Judged,
    known: Mapping[str, Known],
    job: Job | None,
    limits: GateLimits,
    rules: ForecastRules,
    now_s: float,
    leased: Mapping[str, str],
) -> Decision:
    """Answer whether the job may begin at `now_s`; a yes names its device in ``facts["uuid"]``.

    `gated` is the gate's answer with its memory, `known` and `job` what the forecast goes by, and
    `leased` says by device who holds it. Where the gate could look at no device its answer stands,
    and ``uuid`` is None. A no has ``again_in_s``, where a forecast tells when it would be a yes.
    """
    found = candidates(gated, known, job, limits, rules, now_s)
    if not found:
        return _without_devices(gated.decision)
    free = [each for each in found if each.uuid not in leased]
    best = max(free or found, key=_rank)
    because, yes = best.decision.because, best.decision.yes and best.uuid not in leased
    cause = best.decision.facts.get("cause")
    if best.decision.yes and not yes:
        cause = "leased"
        because = f"{best.uuid} would take it and is leased to {leased[best.uuid]}"
    if len(found) > 1:
        because += f" (the best of {len(found)} devices, {len(found) - len(free)} of them leased)"
    # Ready by the forecast and closed all the same: no forecast says when that ends.
    waits_s = [each.ready_in_s for each in free if each.ready_in_s]
    facts: dict[str, Fact] = {
        **best.decision.facts,
        "uuid": best.uuid,
        "headroom_c": best.headroom_c,
        "devices": len(found),
        "devices_leased": len(found) - len(free),
        "again_in_s": None if yes else min(waits_s, default=None),
        "cause": cause,
    }
    return Decision(question=QUESTION, yes=yes, because=because, facts=facts)


def candidates(
    gated: Judged,
    known: Mapping[str, Known],
    job: Job | None,
    limits: GateLimits,
    rules: ForecastRules,
    now_s: float,
) -> list[Candidate]:
    """Every device that counts, with its own answer; none where the gate looked at none."""
    if gated.decision.facts.get("driver") != "present":
        return []
    counted = [each for each in gated.state.devices if each.answers_to(limits.uuid)]
    # A margin in which the guard would pause the job is not one to plan for.
    kept_c = max(rules.keep_margin_c, limits.pause_margin_c)
    rules = rules.model_copy(update={"keep_margin_c": kept_c})
    return [_candidate(each, gated, known, job, limits, rules, now_s) for each in counted]


def capped(
    judged: Callable[[Job], Decision],
    job: Job,
    exponent: float,
    caps_w: Sequence[float],
    refused: Decision,
) -> tuple[float, Decision] | None:
    """The mildest of `caps_w` under which the job may begin now and ends sooner than by waiting.

    `refused` is the no to the job without one, whose forecast says how long that would wait; it is
    not gone by where that is not trusted. `judged` asks again for a job that is slower by
    `exponent` (`Job.capped`).
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


def taken(decision: Decision, uuid: str, holder: str) -> Decision:
    """A no to a placement that was a yes: `holder` has the lease of the device meanwhile."""
    because = f"{uuid} is leased to {holder}; {decision.because}"
    facts = {**decision.facts, "cause": "leased"}
    return decision.model_copy(update={"yes": False, "because": because, "facts": facts})


def keeps_device(done: float, paused_s: float, answer: Decision, limits: GateLimits) -> Decision:
    """May a fit that waits keep its device? `answer` is the gate's no for which it was paused.

    `done` is the share of the fit that is done, `paused_s` how long it has been waiting.
    """
    waited = f"paused for {paused_s:.0f} s of at most {limits.max_pause_s:g} s (max_pause_s)"
    may = paused_s < limits.max_pause_s
    ends = "waits on" if may else "gives the device back"
    because = f"a fit that was {done:.0%} done {waited} and {ends}: {answer.because}"
    facts = {"cause": answer.facts.get("cause")}
    return Decision(question="guard", yes=may, because=because, facts=facts)


def given_back(because: str, cause: str | None) -> Decision:
    """The no to a job that was running, when its guard gave the device back."""
    return Decision(question="guard", yes=False, because=because, facts={"cause": cause})


def anyway(decision: Decision, why: Decision) -> Decision:
    """The same placement with a yes, because `why` says that the job begins all the same."""
    facts = {**decision.facts, "admission": decision.yes, "again_in_s": None, "cause": None}
    because = f"{why.because}; by itself it would be a no: {decision.because}"
    return Decision(question=QUESTION, yes=True, because=because, facts=facts)


def _candidate(
    device: DeviceState,
    gated: Judged,
    known: Mapping[str, Known],
    job: Job | None,
    limits: GateLimits,
    rules: ForecastRules,
    now_s: float,
) -> Candidate:
    alone = Judged(gate.answer_of(device, limits, now_s), gated.state)
    knows = known.get(device.uuid, Known())
    says = forecast.judge(knows, job, limits, rules, now_s)
    decision = admit(alone, says, limits)
    if alone.decision.yes and not decision and says.facts.get("ready_in_s") is None:
        decision = _at_rest(decision, knows, limits, rules, now_s)
    foretold = says.facts["trusted"] is True
    margin_c = says.facts["sure_margin_c"] if foretold else alone.decision.facts.get("margin_c")
    ready_in_s = says.facts.get("ready_in_s") if foretold else None
    if not decision and foretold and ready_in_s is None:
        # No wait makes it safe: the next moment to ask for it is when the device is at rest.
        ready_in_s = forecast.at_rest(knows, limits, rules, now_s).facts.get("rest_in_s")
    return Candidate(
        uuid=device.uuid,
        decision=decision,
        headroom_c=float(margin_c) if isinstance(margin_c, int | float) else -math.inf,
        foretold=foretold,
        ready_in_s=float(ready_in_s) if isinstance(ready_in_s, int | float) else None,
    )


def _at_rest(
    refused: Decision, known: Known, limits: GateLimits, rules: ForecastRules, now_s: float
) -> Decision:
    """A job that no wait makes safe: it begins with the device at rest, where the gate is open.

    It would else be put off for ever. While it runs it is watched, and pauses where it must.
    """
    rest = forecast.at_rest(known, limits, rules, now_s)
    facts = {**refused.facts, "rest": rest.yes}
    if not rest:
        because = f"{refused.because}; it may begin with the device at rest: {rest.because}"
        return refused.model_copy(update={"because": because, "facts": facts})
    because = f"no wait makes it better, and the device is at rest: {refused.because}"
    told = {"yes": True, "because": because, "facts": facts | {"cause": None}}
    return refused.model_copy(update=told)


def _rank(candidate: Candidate) -> tuple[bool, bool, float]:
    return candidate.decision.yes, candidate.foretold, candidate.headroom_c


def _without_devices(decision: Decision) -> Decision:
    facts: dict[str, Fact] = {**decision.facts, "uuid": None, "devices": 0, "again_in_s": None}
    return Decision(question=QUESTION, yes=decision.yes, because=decision.because, facts=facts)


def admit(gated: Judged, thermal_says: Decision, limits: GateLimits) -> Decision:
    """Join the gate's answer for a device with the forecast's for a job on it.

    A forecast that is not trusted leaves it to the gate. A trusted no is a no. A trusted yes also
    opens between pause and resume margin, where the gate would wait for the device to cool.
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
    elif not gate_says.yes and not _only_warm(gated, uuid, limits):
        yes, because = False, gate_says.because
    else:
        yes, because = thermal_says.yes, thermal_says.because
        # A gate that is closed for heat says so; where it is open, only the forecast is against it.
        cause = cause or "forecast"
    facts["cause"] = None if yes else cause
    return Decision(question="admission", yes=yes, because=because, facts=facts)


def _only_warm(gated: Judged, uuid: str, limits: GateLimits) -> bool:
    """Whether a closed device is closed for no other reason than a margin below resume."""
    device = gated.state.device(uuid)
    reading, age_s = device.trusted, gated.decision.facts.get("age_s")
    if reading is None or reading != device.latest or not isinstance(age_s, float):
        return False
    margin_c = device_readings.margin(reading, limits)[0]
    return (
        0 <= age_s <= limits.max_age_s
        and margin_c is not None
        and margin_c > limits.pause_margin_c
        and not device_readings.closing_reasons(reading.throttle_reasons)
        and not gate.dwells(device, limits, reading.read_at_s + age_s)
    )
