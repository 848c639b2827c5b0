"""An attempt at a pipeline's open request by a deployed run: it closes it, or comes back later."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import Pause

from flows.deployed import reconciler
from flows.deployed.backoff import Backoff
from flows.deployed.flow_run import DeployedRun
from flows.retraining import retrain, retrain_request
from flows.run import run_queue
from flows.run.power_source import PowerSource
from flows.run.unit_of_work import UnitOfWork
from flows.stack import prefect_client
from observability.core.paths import Places
from power.monitoring.thermal_trace import Sample
from power.policy import gate

WAITING = "AwaitingHeadroom"
"""The name of the state of a run that waits for the machine to cool."""


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt ended, as its run shows it."""

    request_id: str
    name: retrain_request.Name
    because: str
    overdue: bool
    """Whether the request had waited until its deadline."""
    again_in_s: float | None = None
    """Seconds until the gate is asked again; None where the request is closed."""
    cause: str | None = None
    """Why it was deferred, in one word (`power.policy.gate.Cause`)."""
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Of all contestants, where a fit was judged."""
    samples: Sequence[Sample] = ()
    """The margin of the device during the fit."""


def run_retrain(run: DeployedRun, request_id: str | None, backoff: Backoff) -> State:
    """Close the open request, or hand this run back to its worker until the gate may open.

    The pipeline is held to ask and to conclude, and not during the fit: learning and drift checks
    go on meanwhile. Raises Pause where the run is handed back, which is how Prefect ends the
    process, and StopRequested where a signal came.
    """
    assert run.lease is not None
    before = run.lease.before
    if (
        before is not None
        and before.run_id != run.run_id
        and before.back_at_s is not None
        and reconciler.mark_crashed(run.places, before) is None
    ):
        # The request is the other run's, which comes back to it.
        run.lease.give_back()
        return run.ends("Busy", "another run waits for this pipeline's headroom")
    with PowerSource.opened(run.file, Places(run.home)) as power:
        result = attempt(run, power, backoff)
    if result is None:
        closed = f"request {request_id} is closed already, and no other is open"
        return run.ends("NoRequest", closed if request_id else "no request is open")
    facts: dict[str, Any] = {"because": result.because, "request_id": result.request_id}
    if result.overdue:
        run.emit("retrain.overdue", **facts)
    show_thermal_trace(run, result)
    if result.again_in_s is not None:
        run.emit("retrain.deferred", cause=result.cause, **facts)
        back_at = prefect_client.in_seconds(result.again_in_s)
        try:
            state = prefect_client.put_off(run.run_id, WAITING, back_at, result.because)
        except prefect_client.ServerUnavailable as error:
            return run.ends(
                "Deferred",
                f"{result.because}; the server did not take this run back ({error}), so the next "
                "watch requests another",
            )
        run.lease.wait_until(back_at.timestamp())
        raise Pause(state=state)
    run.emit(f"retrain.{retrain_request.EVENT[result.name]}", **facts)
    if result.scores:
        names = sorted({metric for each in result.scores.values() for metric in each})
        cells = [(who, *map(each.get, names)) for who, each in sorted(result.scores.items())]
        table = json.dumps(prefect_client.rows(("who", *names), cells))
        told = f"Champion and challenger of {run.file.name}: {result.because}"
        run.show_table("scores", table, told)
    return run.ends(result.name, result.because)


def attempt(run: DeployedRun, power: PowerSource, backoff: Backoff) -> AttemptResult | None:
    """Ask, fit, conclude; None where no request is open, or another run closed it meanwhile."""

    @contextmanager
    def held() -> Iterator[UnitOfWork]:
        """The pipeline; what was committed is in the history after the block."""
        with run_queue.acquire(
            run.file, run.home, run.stop, run.display, power=power, run_id=run.run_id
        ) as work:
            yield work
            work.flush()
            work.wait()
            work.export_metrics(ends=True)

    made = retrain.attempt(held, power, run.display, run.stop, lets_go=True)
    if made is None:
        return None
    request, ending = made.request, made.ending
    result = AttemptResult(
        request.request_id,
        ending.name,
        ending.decision.because,
        made.overdue,
        scores=ending.scores,
        samples=made.samples,
    )
    if ending.name != "Deferred":
        return result
    # Times of a recorded trace are on the trace's clock, which is the stream's.
    left_s = None if power.replayed else ending.left_s
    forecast_s = None if power.replayed else ending.again_in_s
    limits = run.file.pipeline.gate
    wait_s = backoff.again_in_s(request.deferrals, forecast_s, left_s)
    deadline = (
        f"{limits.deadline_s:g} s after the request, on the stream's clock"
        if left_s is None
        else _clock(left_s)
    )
    why = "the forecast's time" if forecast_s is not None else "no forecast"
    cause = str(ending.decision.facts.get("cause") or gate.UNKNOWN)
    because = (
        f"deferred {gate.describe_cause(cause, limits.reads_from)}: {result.because}; "
        f"asks again at {_clock(wait_s)} ({why}), deadline {deadline}"
    )
    return replace(result, because=because, again_in_s=wait_s, cause=cause)


def _clock(in_s: float) -> str:
    return prefect_client.in_seconds(in_s).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def show_thermal_trace(run: DeployedRun, result: AttemptResult) -> None:
    """Show the device's margin during the fit as an artifact of the run."""
    if not result.samples:
        return
    table = json.dumps(prefect_client.rows(Sample._fields, result.samples))
    known = [each.margin_c for each in result.samples if each.margin_c is not None]
    lowest = f"{min(known):.1f} °C at the lowest" if known else "unknown all the time"
    told = f"Margin of the device while {run.file.name} was retrained: {lowest}"
    run.show_table("margin", table, told)
