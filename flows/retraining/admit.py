"""Ask whether the open request's retrain may begin now: gate, forecast, place, deadline, lease.

The judges decide (`gate`, `admission`); this file brings them what was read and remembered, takes
the lease of the device that they name, and writes down what they say. What is admitted is not yet
committed: its rows go with what becomes of it, or with whoever lets the pipeline go meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from flows.retraining import retrain_request
from flows.retraining.retrain_request import RequestOutcome
from flows.run.state import OpenRequest
from flows.run.unit_of_work import UnitOfWork
from observability.core.decision import Decision
from observability.history.records import ForecastRecord, GpuReadingRecord, Record
from power.core import device_readings
from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices.device import Device
from power.devices.leases import Lease
from power.forecast.job_profile import Job
from power.monitoring.device_monitor import MonitorView
from power.policy import admission, deadline, gate_override, override_file, power_cap


@dataclass
class Admission:
    """A retrain that may begin: where, why, and what goes into the history with it."""

    request: OpenRequest
    position: int
    decision: Decision
    look: MonitorView
    limits: GateConfig
    """As urgent as the request is."""
    lease: Lease | None = None
    """None where there is no device to speak of, or it is only a recorded one."""
    cap_w: float | None = None
    """The power limit that the device shall have meanwhile, watts; None: as it is."""
    only_capped: bool = False
    """It may not begin on the device without that limit."""
    against_the_gate: bool = False
    """Somebody wants it whatever the gate says: an override, or the end of the deadline."""
    rows: list[Record] = field(default_factory=list)

    @property
    def uuid(self) -> str | None:
        """The device that it was given."""
        told = self.decision.facts.get("uuid")
        return told if isinstance(told, str) else None

    def give_back(self) -> None:
        """Give the device back."""
        if self.lease is not None:
            self.lease.release()


def ask(work: UnitOfWork, request: OpenRequest) -> Admission | RequestOutcome:
    """An admission, or how the attempt ended without one: Deferred or Skipped.

    Raises LeaseFolderUnusable, and BadConfiguration for an override that cannot be read.
    """
    # While nothing is held: one that cannot be read ends the run.
    # A replay is decided the same whenever it runs, so a person's word of today is not for it.
    told = None if work.run.power.replayed else override_file.read(work.run.home.override)
    limits = _urgent(work, request)
    look = _look(work, limits)
    request.asked_gate_at = work.state.position
    rows: list[Record] = [
        *_readings(work, look.survey),
        *_trials(work, look),
        work.decision_row(look.judged.decision),
    ]
    admitted = _placed(work, request, look, limits)
    admitted.rows[:0] = rows
    if look.survey.driver == "present":
        admitted.rows.append(work.decision_row(admitted.decision))
    now = datetime.now(UTC)
    overridden = gate_override.overridden(admitted.decision, told, now)
    if overridden is not admitted.decision:
        admitted = _force_admit(work, admitted) if overridden else admitted
        return _by_hand(work, admitted, gate_override.overridden(admitted.decision, told, now))
    return admitted if admitted.decision else _refused(work, admitted)


def _urgent(work: UnitOfWork, request: OpenRequest) -> GateConfig:
    limits = work.run.file.pipeline.gate
    waited_s = retrain_request.waited_s(work, request)
    return limits.at_urgency(deadline.urgency(waited_s, request.severity, limits))


def _look(work: UnitOfWork, limits: GateConfig) -> MonitorView:
    state = work.state
    look = work.run.power.look(state, limits)
    state.gate, state.gate_s = look.judged.state, look.now_s
    if work.run.power.replayed:
        state.known = look.known
    return look


def _placed(
    work: UnitOfWork,
    request: OpenRequest,
    look: MonitorView,
    limits: GateConfig,
    *,
    anyhow: bool = False,
) -> Admission:
    """The device for this job, and its lease: whoever is cool and not taken, the best first.

    `anyhow`: the lease of one that is not cool, too.
    """
    leased: dict[str, str] = {}
    while True:
        placed = _admission(work, request, look, limits, leased)
        if not (placed.decision or anyhow) or placed.uuid is None or work.run.power.replayed:
            return placed
        if placed.uuid in leased:
            return placed
        placed.lease = work.run.power.lease(placed.uuid, work.run.name)
        if placed.lease is not None:
            return placed
        leased[placed.uuid] = work.run.power.holder(placed.uuid)


def _admission(
    work: UnitOfWork,
    request: OpenRequest,
    look: MonitorView,
    limits: GateConfig,
    leased: dict[str, str],
) -> Admission:
    """What the judges say of the job: as its cap has it, and, where that is a no, under a lower."""
    rules, profile = work.run.file.pipeline.forecast, work.state.job

    def judged(job: Job | None) -> Decision:
        return admission.judge(look.judged, look.known, job, limits, rules, look.now_s, leased)

    admitted = Admission(request, work.state.position, judged(profile.job()), look, limits)
    device = None if admitted.uuid is None else work.run.power.device(admitted.uuid)
    if device is not None:
        # From here on it is about this device: its limits are no other's.
        limits = limits.model_copy(update={"uuid": device.uuid})
        _cap(work, admitted, device, judged)
    return admitted


def _cap(
    work: UnitOfWork,
    admitted: Admission,
    device: Device,
    judged: Callable[[Job | None], Decision],
) -> None:
    """Choose the power limit of the job, and ask again for the job as it is under that."""
    rules, profile = work.run.file.pipeline.cap, work.state.job
    if not rules.enabled:
        return
    chosen = power_cap.choose(work.state.caps, device, rules)
    admitted.rows.append(work.decision_row(chosen))
    admitted.cap_w = power_cap.watts(chosen)
    job = profile.job()
    if job is None:
        return
    if admitted.cap_w is not None:
        job = job.capped(admitted.cap_w, profile.cap_exponent)
        admitted.decision = judged(job)
    lower_w = [
        each
        for each in power_cap.allowed(device, rules)
        if admitted.cap_w is None or each < admitted.cap_w
    ]
    sooner = admission.capped(judged, job, profile.cap_exponent, lower_w, admitted.decision)
    if sooner is not None:
        admitted.cap_w, admitted.decision = sooner


def _by_hand(
    work: UnitOfWork, admitted: Admission, overridden: Decision
) -> Admission | RequestOutcome:
    """What a person said, who need not know of leases: a device that is taken stays taken."""
    admitted.rows.append(work.decision_row(overridden))
    if not overridden:
        admitted.give_back()
        return retrain_request.defer(work, admitted.request, overridden, admitted.rows)
    return _begin_anyway(work, admitted, overridden)


def _force_admit(work: UnitOfWork, admitted: Admission) -> Admission:
    """The same request with a device that is not taken, however warm, where there is one."""
    if admitted.lease is not None:
        return admitted
    placed = _placed(work, admitted.request, admitted.look, admitted.limits, anyhow=True)
    placed.rows = admitted.rows
    return placed


def _refused(work: UnitOfWork, admitted: Admission) -> Admission | RequestOutcome:
    """A no: put off until the deadline, and then what the knob says."""
    request, placed = admitted.request, admitted.decision
    late = deadline.at_deadline(
        retrain_request.waited_s(work, request), work.run.file.pipeline.gate
    )
    admitted.rows.append(work.decision_row(late))
    if not late:
        again_in_s = placed.facts.get("again_in_s")
        told = float(again_in_s) if isinstance(again_in_s, int | float) else None
        return retrain_request.defer(work, request, placed, admitted.rows, told)
    if late.facts["at_deadline"] != "skip":
        admitted = _force_admit(work, admitted)
        if _may_begin_late(work, admitted, late):
            return _begin_anyway(work, admitted, admission.force_admit(admitted.decision, late))
        admitted.give_back()
    return retrain_request.close(work, request, RequestOutcome("Skipped", late), admitted.rows)


def _may_begin_late(work: UnitOfWork, admitted: Admission, late: Decision) -> bool:
    """Whether a request whose deadline is over begins all the same, and under which limit."""
    if late.facts["at_deadline"] != "capped":
        return late.facts["at_deadline"] == "run"
    device = None if admitted.uuid is None else work.run.power.device(admitted.uuid)
    if device is None:
        return False
    lowest = power_cap.lowest(device, work.run.file.pipeline.cap)
    admitted.rows.append(work.decision_row(lowest))
    admitted.cap_w = power_cap.watts(lowest)
    admitted.only_capped = True
    return lowest.yes


def _begin_anyway(
    work: UnitOfWork, admitted: Admission, decision: Decision
) -> Admission | RequestOutcome:
    """Begin whatever the gate says, unless the device is another job's."""
    admitted.decision, admitted.against_the_gate = decision, True
    if admitted.uuid is not None and admitted.lease is None and not work.run.power.replayed:
        holder = work.run.power.holder(admitted.uuid)
        taken = admission.leased_elsewhere(decision, admitted.uuid, holder)
        rows = [*admitted.rows, work.decision_row(taken)]
        return retrain_request.defer(work, admitted.request, taken, rows)
    return admitted


def _trials(work: UnitOfWork, look: MonitorView) -> list[Record]:
    """The forecasts that were held against what came since the gate was last asked."""
    return [
        work.run.row(
            ForecastRecord,
            position=work.state.position,
            uuid=each.uuid,
            kind="margin at horizon",
            horizon_s=each.checked.horizon_s,
            predicted_c=each.checked.predicted_c,
            actual_c=each.checked.actual_c,
        )
        for each in look.trials
    ]


def _readings(work: UnitOfWork, survey: DeviceSnapshot) -> list[Record]:
    gate_knobs = work.run.file.pipeline.gate
    return [
        work.run.row(
            GpuReadingRecord,
            source=gate_knobs.trace or gate_knobs.reads_from,
            elapsed_s=reading.read_at_s,
            **device_readings.with_effective_margin(reading, gate_knobs).model_dump(
                include=DeviceReading.model_fields.keys() & GpuReadingRecord.model_fields.keys()
            ),
        )
        for reading in survey.readings
    ]
