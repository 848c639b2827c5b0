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

from flows import claims, goodbye, server, untold
from flows.claims import Claim, Kind
from observability.places import PipelinePlaces

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
    for ended in untold.waiting(home):
        if ended.may_still_be_told(goodbye.BOUND_S):
            continue
        try:
            state = server.state_of(ended.run_id)
            if state is not None and untold.mends(state):
                server.mark(ended.run_id, ended.state())
        except server.Unheard:
            return
        untold.forget(home, ended)


def killed(places: PipelinePlaces, held: Kind) -> list[Lost]:
    """Find runs of other kinds that were killed, say so to the server, forget their claims.

    The claim of the kind `held` is the caller's own, who knows what was left there.
    """
    found = [
        claim
        for kind in claims.KINDS
        if kind != held and (claim := claims.left(places, kind)) is not None
    ]
    return [lost for claim in found if (lost := bury(places, claim)) is not None]


def bury(places: PipelinePlaces, claim: Claim) -> Lost | None:
    """Mark the run of a claim without a process as crashed, unless it is to come back."""
    try:
        state = server.state_of(claim.run_id)
        if _comes_back(claim, state):
            return None
        if claim.back_at_s is None and state is not None and state.is_completed():
            # It ended well, and was killed between that and letting go.
            claims.clear(places, claim)
            return None
        because = (
            f"the process {claim.pid} on {claim.host} that did it is gone; nothing that it "
            "had acknowledged is lost"
        )
        if state is not None and state.type in (StateType.RUNNING, StateType.PENDING):
            server.mark(claim.run_id, Crashed(message=because))
    except server.Unheard:
        # A later run finds the claim again.
        return None
    claims.clear(places, claim)
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
    if claims.busy(places, "retrain") or claims.left(places, "retrain") is not None:
        return True
    try:
        runs = server.coming(RETRAIN_FLOW)
    except server.Unheard:
        return False
    return any(run.parameters.get("pipeline") == pipeline for run in runs)
