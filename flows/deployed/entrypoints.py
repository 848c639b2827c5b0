"""What a Prefect server runs: learn, watch, retrain, upkeep. `prefect.yaml` deploys these four.

    learn    on a schedule   Learned, NothingNew
    watch    on a schedule   NotDue, NotEnoughData, NoDrift, DriftDetected, RetrainRequested
    retrain  by an event     Promoted, Reused, Candidate, Rejected, Skipped, NoModel, NoRequest;
                             else AwaitingHeadroom
    upkeep   every night     Completed, Deferred

Each of them also ends as Busy, where another run has what it needs, and as Stopped, where a signal
ended it. The home is the source of truth: each run first corrects what the server shows of earlier
runs. Alarms and outcomes are also events (docs/operations.md lists them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows import maintenance
from flows.deployed import (
    drift_run,
    exit_deadline,
    flow_run,
    learn_run,
    pending_states,
    retrain_run,
)
from flows.deployed.backoff import Backoff
from flows.deployed.flow_run import DeployedRun
from models.batch.promotion import PromotionConfig
from models.batch.recipe_config import BatchRecipe
from observability.drift.drift import DriftConfig
from observability.worth.worth import RetrainConfig
from power.core.gate_config import GateConfig
from power.forecast.config import ForecastConfig
from power.policy.power_cap import CapConfig

_ON_END = [exit_deadline.cancel, pending_states.acknowledge]
_OPTIONS: dict[str, Any] = {
    # The state of a pipeline is in its checkpoint: Prefect keeps no results, and does not retry,
    # since the next run goes on from there.
    "persist_result": False,
    "retries": 0,
    "on_completion": _ON_END,
    "on_failure": _ON_END,
    "on_crashed": _ON_END,
    "on_cancellation": _ON_END,
}
Records = Annotated[int, Field(ge=1)]


@flow(name="thermodrift-learn", **_OPTIONS)
def learn(
    pipeline: Path,
    home: Path | None = None,
    limit: Records | None = None,
    stop_for_drift_check: bool = True,
) -> State:
    """Learn what the stream has that is new.

    `pipeline` is the pipeline's TOML file, `home` the folder that keeps everything (else
    THERMODRIFT_HOME). It ends at the stream's end, after `limit` records, and, with
    `stop_for_drift_check`, where a drift check is due.
    """

    def work(run: DeployedRun) -> State:
        result = learn_run.run_learn(
            run.file, run.home, run.run_id, run.stop, run.display, limit, stop_for_drift_check
        )
        if result.drift_check_due and result.records:
            run.emit("drift_check.due", position=result.position)
        name = "Stopped" if run.stop() else "Learned" if result.records else "NothingNew"
        return run.ends(name, result.because)

    return flow_run.run_flow("learn", pipeline, home, work)


@flow(name="thermodrift-watch", **_OPTIONS)
def watch(
    pipeline: Path,
    home: Path | None = None,
    drift: DriftConfig | None = None,
    worth: RetrainConfig | None = None,
) -> State:
    """Check for drift, and decide whether a retrain is worth requesting.

    `drift` and `worth` override the knobs of the pipeline's file. A request is in the history
    before its event is emitted; the event is emitted again where no run takes the request up.
    """

    def work(run: DeployedRun) -> State:
        result = drift_run.run_drift_check(run)
        drift_run.announce(run, result)
        if result.checked is not None:
            run.emit("drift_check.completed", position=result.position)
        return run.ends(result.name, result.because)

    return flow_run.run_flow("watch", pipeline, home, work, drift=drift, worth=worth)


@flow(name="thermodrift-retrain", **_OPTIONS)
def retrain(
    pipeline: Path,
    request_id: str | None = None,
    home: Path | None = None,
    batch: BatchRecipe | None = None,
    gate: GateConfig | None = None,
    promotion: PromotionConfig | None = None,
    forecast: ForecastConfig | None = None,
    cap: CapConfig | None = None,
    backoff: Backoff | None = None,
) -> State:
    """Close the open request of a pipeline if the gate is open, or come back later.

    `request_id` says which request this run was started for; the one that is open is closed.
    `backoff` applies where no forecast says how long to wait; the other parameters override the
    knobs of the pipeline's file.
    """

    def work(run: DeployedRun) -> State:
        return retrain_run.run_retrain(run, request_id, backoff or Backoff())

    knobs = {"batch": batch, "gate": gate, "promotion": promotion, "forecast": forecast, "cap": cap}
    return flow_run.run_flow("retrain", pipeline, home, work, **knobs)


@flow(name="thermodrift-upkeep-daily", **_OPTIONS)
def upkeep(home: Path | None = None) -> State:
    """Merge the prediction logs of a home, and remove what its [upkeep] no longer keeps."""
    with exit_deadline.exit_within():
        home, run_id = flow_run.home_of(home), flow_run.run_id()
        pending_states.forget(home, run_id)
        document = maintenance.upkeep.fn(home)
        told = "; ".join(
            f"{each['pipeline'] or 'history'}: {each['because']}" for each in document["results"]
        )
        if document["state"] == "failed":
            return pending_states.save(home, run_id, False, None, told)
        name = "Completed" if document["state"] == "done" else "Deferred"
        return pending_states.save(home, run_id, True, name, told)
