"""What every deployed run does around its work: begin, put the picture right, end by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed
from pydantic import BaseModel

from flows import goodbye, leases, pipeline, reconcile, server, settings
from flows.leases import Held, Kind
from flows.overrides import over
from flows.pipeline import PipelineFile
from flows.progress import Display
from flows.stopping import Stop, StopRequested
from observability import faults
from observability.errors import ThermodriftError, TryAgainLater
from observability.places import PipelinePlaces, Places

EVENTS = "thermodrift."
"""What the names of our events begin with."""


@dataclass
class Job:
    """One deployed run of one pipeline."""

    file: PipelineFile
    home: Path
    run_id: str
    """Prefect's id of the flow run, which is the history's too."""
    stop: Stop
    display: Display
    lease: Held | None = None
    ending: State = field(default_factory=Completed)
    """How the run ends."""

    @property
    def places(self) -> PipelinePlaces:
        """Where the pipeline lies."""
        return Places(self.home).pipeline(self.file.name)

    def ends(self, name: str, because: str) -> State:
        """End the run well, under a name that its list of runs shows."""
        self.ending = Completed(name=name, message=because)
        return self.ending

    def emit(self, what: str, labels: dict[str, str] | None = None, **payload: Any) -> None:
        """Tell the server what happened to this pipeline."""
        here = {"pipeline": str(self.file.path), "home": str(self.home), "run_id": self.run_id}
        server.emit(EVENTS + what, self.file.name, labels or {}, {**here, **payload})


@contextmanager
def begun(kind: Kind, path: Path, home: Path | None, **knobs: BaseModel | None) -> Iterator[Job]:
    """A run's surroundings. What only means "not now" ends the run well: as Busy, or Stopped.

    Then the block is left early, and the job knows how the run ends. Raises BadConfiguration, and
    what the work raises; a failure is an event, too.
    """
    with goodbye.bounded():
        file = over(pipeline.read(path), **knobs)
        stop, display = Stop(), Display(file.name)
        job = Job(file, home_of(home), _run_id(), stop, display)
        try:
            with stop.listening(), display, leases.held(job.places, kind, job.run_id) as job.lease:
                _put_right(job)
                yield job
        except leases.Leased as leased:
            # A retrain that another run is at is wanted no more; learning and looking still are.
            job.ends("Calm" if kind == "retrain" else "Busy", str(leased))
        except TryAgainLater as later:
            job.ends("Busy", str(later))
        except StopRequested:
            job.ends("Stopped", "a signal asked for it; what was begun comes again")
        except (ThermodriftError, OSError, RuntimeError, ValueError) as error:
            job.emit(f"{kind}.failed", because=f"{type(error).__name__}: {error}")
            raise


def home_of(given: Path | None) -> Path:
    """The home of a run: as given, or as the worker's environment says."""
    settings.silence_telemetry()
    surroundings = settings.Settings()
    faults.arm_from(surroundings.faults)
    return (given or surroundings.home).resolve()


def _run_id() -> str:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return str(context.flow_run.id)


def _put_right(job: Job) -> None:
    """Say of runs that were killed that they were, this one's forerunner among them."""
    assert job.lease is not None
    lost = reconcile.killed(job.places, job.lease.lease.kind)
    before = job.lease.before
    if before is not None and before.back_at_s is None and before.run_id != job.run_id:
        buried = reconcile.bury(job.places, before)
        lost.extend([buried] if buried is not None else [])
    # One that waited, and was cancelled by a person meanwhile, did not fail.
    for each in (each for each in lost if each.lease.back_at_s is None):
        job.emit(f"{each.lease.kind}.failed", because=each.because, killed_run=each.lease.run_id)
