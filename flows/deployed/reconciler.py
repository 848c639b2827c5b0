"""Put Prefect's picture right where it and the home disagree: the home is the truth.

A run killed with SIGKILL runs for ever to Prefect's server; a claim without a process says that it
does not. One whose ending the server did not hear runs for ever, too; the home has kept the ending.
A request whose event was lost waits for nobody; the home says that it is open.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from prefect.client.schemas.objects import State, StateType
from prefect.states import Crashed

from flows.deployed import exit_deadline, pending_states, run_lease
from flows.deployed.run_lease import Claim, Kind
from flows.stack import prefect_client
from observability.core.paths import PipelinePlaces

GRACE_S = 120.0
"""Seconds that a run may come back late before nobody counts on it: its worker may start slowly."""
RETRAIN_FLOW = "thermodrift-retrain"


@dataclass(frozen=True)
class Lost:
    """A run that is not there any more, and was to do something."""

    claim: Claim
    because: str


def unheard(home: Path) -> None:
    """Tell the server of endings that it did not hear; those that it does not hear now stay."""
    for ended in pending_states.waiting(home):
        if ended.may_still_be_told(exit_deadline.BOUND_S):
            continue
        try:
            state = prefect_client.state_of(ended.run_id)
            if state is not None and pending_states.mends(state):
                prefect_client.mark(ended.run_id, ended.state())
        except prefect_client.Unheard:
            return
        pending_states.forget(home, ended)


def killed(places: PipelinePlaces, held: Kind) -> list[Lost]:
    """Find runs of other kinds that were killed, say so to the server, forget their claims.

    The claim of the kind `held` is the caller's own, who knows what was left there.
    """
    found = [
        claim
        for kind in run_lease.KINDS
        if kind != held and (claim := run_lease.left(places, kind)) is not None
    ]
    return [lost for claim in found if (lost := bury(places, claim)) is not None]


def bury(places: PipelinePlaces, claim: Claim) -> Lost | None:
    """Mark the run of a claim without a process as crashed, unless it is to come back."""
    try:
        state = prefect_client.state_of(claim.run_id)
        if _comes_back(claim, state):
            return None
        if claim.back_at_s is None and state is not None and state.is_completed():
            # It ended well, and was killed between that and letting go.
            run_lease.clear(places, claim)
            return None
        because = (
            f"the process {claim.pid} on {claim.host} that did it is gone; nothing that it "
            "had acknowledged is lost"
        )
        if state is not None and state.type in (StateType.RUNNING, StateType.PENDING):
            prefect_client.mark(claim.run_id, Crashed(message=because))
    except prefect_client.Unheard:
        # A later run finds the claim again.
        return None
    run_lease.clear(places, claim)
    return Lost(claim, because)


def _comes_back(claim: Claim, state: State | None) -> bool:
    """Whether a run that gave its process up will have one again, be its worker ever so late."""
    if claim.back_at_s is None or state is None or state.is_final():
        return False
    return state.is_scheduled() or time.time() < claim.back_at_s + GRACE_S


def retrain_is_coming(places: PipelinePlaces, pipeline: str) -> bool:
    """Whether a run is at the pipeline's request, waits with it, or is about to take it up.

    A server that does not answer could not start one either: then nothing is coming.
    """
    if run_lease.busy(places, "retrain") or run_lease.left(places, "retrain") is not None:
        return True
    try:
        runs = prefect_client.coming(RETRAIN_FLOW)
    except prefect_client.Unheard:
        return False
    return any(run.parameters.get("pipeline") == pipeline for run in runs)
