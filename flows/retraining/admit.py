"""Ask whether the open request's retrain may begin now: gate, forecast, device, deadline, lease.

The policies decide (`gate`, `admission`, `deadline`); this module gives them what was read and what
is known, takes the lease of the device that they name, and makes the rows of their decisions. The
rows of an admission are not committed here: the attempt commits them with its outcome, or before it
releases the pipeline.
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
from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.devices.device import Device
from power.devices.leases import Lease
from power.forecast.job_profile import Job
from power.monitoring.device_monitor import MonitorView
from power.policy import admission, deadline, gate_override, override_file, power_cap


@dataclass
class Admission:
    """A retrain that may begin: where, why, and the rows that go into the history with it."""

    request: OpenRequest
    position: int
    decision: Decision
    view: MonitorView
    limits: GateConfig
    """Adjusted to the urgency of the request."""
    lease: Lease | None = None
    """None where there is no device, or only a recorded one."""
    cap_w: float | None = None
    """The power limit of the device during the fit, watts; None: unchanged."""
    only_capped: bool = False
    """It may not begin on the device without that limit."""
    against_the_gate: bool = False
    """It begins whatever the gate says: by an override, or at the end of the deadline."""
    rows: list[Record] = field(default_factory=list)

    @property
    def uuid(self) -> str | None:
        """The device that it was given."""
        uuid = self.decision.facts.get("uuid")
        return uuid if isinstance(uuid, str) else None

    def give_back(self) -> None:
        """Release the device."""
        if self.lease is not None:
            self.lease.release()


def ask(work: UnitOfWork, request: OpenRequest) -> Admission | RequestOutcome:
    """An admission, or how the attempt ended without one: Deferred or Skipped.

    Raises LeaseFolderUnusable, and BadConfiguration for an override that cannot be read.
    """
    state, power, knobs = work.state, work.run.power, work.run.file.pipeline.gate
    # The override is read first, while nothing is held, since an error in it ends the run. A replay
    # is decided the same whenever it runs, so today's override does not apply to it.
    override = None if power.replayed else override_file.read(work.run.home.override)
    waited_s = retrain_request.waited_s(work, request)
    limits = knobs.at_urgency(deadline.urgency(waited_s, request.severity, knobs))
    view = power.look(state, limits)
    state.gate, state.gate_s = view.judged.state, view.now_s
    if power.replayed:
        state.known = view.known
    request.asked_gate_at = state.position
    rows: list[Record] = [
        *(
            work.run.row(
                GpuReadingRecord,
                source=knobs.trace or knobs.reads_from,
                elapsed_s=reading.read_at_s,
                **device_readings.with_effective_margin(reading, knobs).model_dump(
                    include=DeviceReading.model_fields.keys() & GpuReadingRecord.model_fields.keys()
                ),
            )
            for reading in view.survey.readings
        ),
        *(
            work.run.row(
                ForecastRecord,
                position=state.position,
                uuid=each.uuid,
                kind="margin at horizon",
                horizon_s=each.checked.horizon_s,
                predicted_c=each.checked.predicted_c,
                actual_c=each.checked.actual_c,
            )
            for each in view.trials
        ),
        work.decision_row(view.judged.decision),
    ]
    admitted = _place(work, request, view, limits)
    admitted.rows[:0] = rows
    if view.survey.driver == "present":
        admitted.rows.append(work.decision_row(admitted.decision))
    now = datetime.now(UTC)
    overridden = gate_override.overridden(admitted.decision, override, now)
    if overridden is admitted.decision:
        return admitted if admitted.decision else _refused(work, admitted)
    if overridden:
        admitted = _force_admit(work, admitted)
        overridden = gate_override.overridden(admitted.decision, override, now)
    admitted.rows.append(work.decision_row(overridden))
    if not overridden:
        admitted.give_back()
        return retrain_request.defer(work, request, overridden, admitted.rows)
    return _begin_anyway(work, admitted, overridden)


def _place(
    work: UnitOfWork,
    request: OpenRequest,
    view: MonitorView,
    limits: GateConfig,
    *,
    force: bool = False,
) -> Admission:
    """The best device that is cool and not leased, and its lease.

    `force`: the lease of a device that is not cool, too.
    """
    leased: dict[str, str] = {}
    while True:
        placed = _admission(work, request, view, limits, leased)
        if not (placed.decision or force) or placed.uuid is None or work.run.power.replayed:
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
    view: MonitorView,
    limits: GateConfig,
    leased: dict[str, str],
) -> Admission:
    """The policies' answer to the fit under its power limit, or, after a no, under a lower one."""
    rules, profile = work.run.file.pipeline.forecast, work.state.job

    def judged(job: Job | None) -> Decision:
        return admission.judge(view.judged, view.known, job, limits, rules, view.now_s, leased)

    admitted = Admission(request, work.state.position, judged(profile.job()), view, limits)
    device = None if admitted.uuid is None else work.run.power.device(admitted.uuid)
    if device is not None:
        # From here on only this device is judged: its power limits are no other's.
        limits = limits.model_copy(update={"uuid": device.uuid})
        _cap(work, admitted, device, judged)
    return admitted


def _cap(
    work: UnitOfWork,
    admitted: Admission,
    device: Device,
    judged: Callable[[Job | None], Decision],
) -> None:
    """Choose the power limit of the fit, and judge the fit again under that limit."""
    rules, profile = work.run.file.pipeline.cap, work.state.job
    if not rules.enabled:
        return
    chosen = power_cap.choose(work.state.caps, device, rules)
    admitted.rows.append(work.decision_row(chosen))
    admitted.cap_w = power_cap.watts(chosen)
    if admitted.request.capped and admitted.cap_w is None:
        # `worth` asked for less energy: a request is not refused where no limit can be set.
        lowest = power_cap.lowest(device, rules)
        admitted.rows.append(work.decision_row(lowest))
        admitted.cap_w = power_cap.watts(lowest)
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


def _force_admit(work: UnitOfWork, admitted: Admission) -> Admission:
    """The same request with a device that is not leased, however warm, where there is one."""
    if admitted.lease is not None:
        return admitted
    placed = _place(work, admitted.request, admitted.view, admitted.limits, force=True)
    placed.rows = admitted.rows
    return placed


def _refused(work: UnitOfWork, admitted: Admission) -> Admission | RequestOutcome:
    """After a no: defer until the deadline, and then do what the knob `at_deadline` says."""
    request, placed = admitted.request, admitted.decision
    late = deadline.at_deadline(
        retrain_request.waited_s(work, request), work.run.file.pipeline.gate
    )
    admitted.rows.append(work.decision_row(late))
    if not late:
        again_in_s = placed.facts.get("again_in_s")
        forecast_s = float(again_in_s) if isinstance(again_in_s, int | float) else None
        return retrain_request.defer(work, request, placed, admitted.rows, forecast_s)
    if late.facts["at_deadline"] != "skip":
        admitted = _force_admit(work, admitted)
        begins = late.facts["at_deadline"] == "run"
        if late.facts["at_deadline"] == "capped" and admitted.uuid is not None:
            device = work.run.power.device(admitted.uuid)
            if device is not None:
                lowest = power_cap.lowest(device, work.run.file.pipeline.cap)
                admitted.rows.append(work.decision_row(lowest))
                admitted.cap_w = power_cap.watts(lowest)
                admitted.only_capped = True
                begins = lowest.yes
        if begins:
            return _begin_anyway(work, admitted, admission.force_admit(admitted.decision, late))
        admitted.give_back()
    return retrain_request.close(work, request, RequestOutcome("Skipped", late), admitted.rows)


def _begin_anyway(
    work: UnitOfWork, admitted: Admission, decision: Decision
) -> Admission | RequestOutcome:
    """Begin whatever the gate says, unless another retrain has the lease of the device."""
    admitted.decision, admitted.against_the_gate = decision, True
    if admitted.uuid is not None and admitted.lease is None and not work.run.power.replayed:
        holder = work.run.power.holder(admitted.uuid)
        leased = admission.leased_elsewhere(decision, admitted.uuid, holder)
        rows = [*admitted.rows, work.decision_row(leased)]
        return retrain_request.defer(work, admitted.request, leased, rows)
    return admitted
