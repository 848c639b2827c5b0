"""Adapter for a device's power limit: it is lowered while a job runs, and always restored.

A driver keeps a limit after the process that set it has ended, and does not know the previous one.
So the old limit is on disk before the new one is set; it is restored at the end of the job, on a
signal or an error, and after a kill by the next process that starts. If the limit is no longer the
one that was set here, somebody else changed it: then the file is only removed.

One process at a time controls a device's limit, by a lock of the operating system that ends with
it: while it is held, no other process touches the file. `policy.power_cap` decides which limit to
set, and the caller passes what sets it (`power.devices.device.PowerLimitSetter`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import AwareDatetime, Field, ValidationError

from observability.core import atomic_file, failpoints, file_lock
from observability.core.decision import Decision, Fact
from power.core.frozen_model import FiniteModel
from power.devices.device import SAME_LIMIT_W, LimitChange, LimitRefused, PowerLimitSetter

_KEPT_AS: Final = ".limit.json"
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class SavedLimit(FiniteModel):
    """The content of the file that restores a device's limit."""

    uuid: str = Field(min_length=1)
    limit_w: float = Field(gt=0, description="The limit before, watts.")
    cap_w: float = Field(gt=0, description="The limit that was set, watts.")
    pid: int = Field(description="The process that holds it, for people; the lock decides.")
    at: AwareDatetime = Field(description="When the file was written.")


class PowerLimitResult:
    """The outcome of a request to lower a limit.

    `begun` answers whether it was lowered, and why not; `ended`, once the block is over and where
    there was something to put back, whether that was done. Both have the question "power_limit".
    """

    def __init__(self, begun: Decision) -> None:
        self.begun = begun
        self.ended: Decision | None = None

    @property
    def cap_w(self) -> float | None:
        """The cap in force in the block, watts; None: the limit was not changed."""
        cap_w = self.begun.facts.get("cap_w")
        return float(cap_w) if self.begun and cap_w is not None else None

    @property
    def held(self) -> bool:
        """After the block: whether `cap_w` was still in force, so that the run measured it."""
        if self.cap_w is None:
            return True
        found_w = None if self.ended is None else self.ended.facts.get("found_w")
        return found_w is not None and abs(float(found_w) - self.cap_w) <= SAME_LIMIT_W


@contextmanager
def capped(
    uuid: str, cap_w: float | None, kept_in: Path, setter: PowerLimitSetter
) -> Iterator[PowerLimitResult]:
    """Run the block with the limit of `uuid` lowered to `cap_w` watts; None: unchanged.

    The block always runs: a limit that could not be lowered or restored is a "no" in the outcome.
    The file of one that could not be restored stays in the folder `kept_in`, and
    `restore_leftover_limits` tries again. Raises nothing of its own.
    """
    told = PowerLimitResult(_answer(False, "no cap is asked for", {"uuid": uuid, "cap_w": None}))
    if cap_w is None:
        yield told
        return
    place = _Place.of(uuid, kept_in)
    facts: dict[str, Fact] = {"uuid": uuid, "cap_w": cap_w}
    lock, because = _lock(uuid, place)
    if lock is None:
        told.begun = _answer(False, because, facts)
        yield told
        return
    try:
        told.begun = _begin(uuid, cap_w, place, setter, facts)
        yield told
    finally:
        # This also runs after a stop, Ctrl-C, or an error of the block.
        try:
            told.ended = _put_back(place, setter)
        finally:
            lock.release()


def restore_leftover_limits(kept_in: Path, setter: PowerLimitSetter) -> list[Decision]:
    """Restore the limits that ended processes have left behind; one decision per device.

    Yes: the limit is what it was before. No: its file stays, or somebody else changed the limit;
    the decision says which. Limits of living processes are skipped. Call it before a device is read
    for the first time. Raises nothing.
    """
    found = []
    for file in sorted(kept_in.glob(f"*{_KEPT_AS}")):
        place = _Place(file, file.with_suffix(".lock"))
        try:
            lock = file_lock.acquire(place.lock)
        except file_lock.LockBusy:
            continue
        except OSError as error:
            told = atomic_file.refusal(error, place.lock)
            found.append(_answer(False, f"{told}; {atomic_file.remedy(error)}", {}))
            continue
        try:
            # Another process may have restored it before the lock was acquired.
            answer = _put_back(place, setter)
            found += [] if answer is None else [answer]
        finally:
            lock.release()
    return found


class _Place(NamedTuple):
    """The file of a device's old limit, and its lock."""

    file: Path
    lock: Path

    @classmethod
    def of(cls, uuid: str, folder: Path) -> _Place:
        """Return the place of a device; its file name is unique and safe."""
        name = uuid
        if not _PLAIN.fullmatch(uuid):
            plain = re.sub(r"[^A-Za-z0-9_-]", "_", uuid)[:60]
            name = f"{plain}.{hashlib.sha256(uuid.encode()).hexdigest()[:12]}"
        file = folder / f"{name}{_KEPT_AS}"
        return cls(file, file.with_suffix(".lock"))


def _lock(uuid: str, place: _Place) -> tuple[file_lock.Lock | None, str]:
    """The lock over the limit of `uuid`, or None and the reason why it cannot be had."""
    try:
        place.file.parent.mkdir(parents=True, exist_ok=True)
        return file_lock.acquire(place.lock), ""
    except file_lock.LockBusy:
        return None, f"another process holds the limit of {uuid}: its cap counts, until it ends"
    except OSError as error:
        return None, f"{_told(error, place.file)}; the job runs without this cap"


def _begin(
    uuid: str, cap_w: float, place: _Place, setter: PowerLimitSetter, facts: dict[str, Fact]
) -> Decision:
    try:
        for aside in place.file.parent.glob(f".{place.file.name}.*.tmp"):
            aside.unlink()
        return _lower(uuid, cap_w, place, setter, facts)
    except OSError as error:
        because = f"{_told(error, place.file)}; the job runs without this cap"
        # The limit may have been set nevertheless: it is restored at once.
        undone = _put_back(place, setter)
        also = f"; {undone.because}" if undone is not None else ""
        return _answer(False, f"{because}{also}", facts)


def _lower(
    uuid: str, cap_w: float, place: _Place, setter: PowerLimitSetter, facts: dict[str, Fact]
) -> Decision:
    left = _put_back(place, setter)
    if left is not None and place.file.exists():
        return _answer(False, f"an older limit is to be put back first: {left.because}", facts)
    found = setter.read(uuid)
    facts |= {
        "power_limit_w": found.limit_w,
        "power_limit_min_w": found.least_w,
        "power_limit_max_w": found.most_w,
    }
    if not found.least_w <= cap_w <= found.most_w:
        because = f"{uuid} takes {found.least_w:g} to {found.most_w:g} W, not {cap_w:g} W"
        return _answer(False, because, facts)
    if cap_w >= found.limit_w:
        because = f"the limit of {uuid} is {found.limit_w:g} W, no higher than {cap_w:g} W"
        return _answer(False, because, facts)
    kept = SavedLimit(
        uuid=uuid, limit_w=found.limit_w, cap_w=cap_w, pid=os.getpid(), at=datetime.now(UTC)
    )
    _remember(kept, place)
    failpoints.point("power_limit.before_set")
    change = setter.change(uuid, found.limit_w, cap_w)
    failpoints.point("power_limit.after_set")
    _check(change, kept, place, setter)
    because = f"the limit of {uuid} is {cap_w:g} W, {found.limit_w:g} W before"
    return _answer(True, because, facts)


def _check(change: LimitChange, kept: SavedLimit, place: _Place, setter: PowerLimitSetter) -> None:
    """Raise LimitRefused with the reason unless the cap is in force."""
    before, after = change
    if not before.is_at(kept.limit_w):
        why = f"somebody set it to {before.limit_w:g} W in this moment, which counts"
    elif before.is_at(after.limit_w):
        why = (
            "the driver reports success and changes nothing; see whether nvidia-smi -pl can set it"
        )
    elif not after.is_at(kept.cap_w):
        # The file must have the limit that the driver really set, to recognize it later.
        _remember(kept.model_copy(update={"cap_w": after.limit_w}), place)
        why = f"the driver makes {after.limit_w:g} W of it"
    else:
        # It is read again: if nothing else uses the device, a driver without persistence mode
        # forgets the limit when the process that set it ends.
        now_w = setter.read(kept.uuid).limit_w
        if after.is_at(now_w):
            return
        why = f"a moment later it is {now_w:g} W; turn on persistence mode (nvidia-smi -pm 1)"
    raise LimitRefused(f"the power limit of {kept.uuid} cannot be {kept.cap_w:g} W: {why}")


def _remember(what: SavedLimit, place: _Place) -> None:
    atomic_file.write(place.file, what.model_dump_json(indent=2).encode())


def _put_back(place: _Place, setter: PowerLimitSetter) -> Decision | None:
    """Restore the limit in the file and remove it; None without a file. Needs the lock."""
    try:
        kept = SavedLimit.model_validate_json(place.file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        why = str(error).partition("\n")[0]
        because = (
            f"{place.file} cannot be read ({why}), and so which limit is to be put back: see "
            "nvidia-smi -q -d POWER, set what you want by nvidia-smi -pl, and remove the file"
        )
        return _answer(False, because, {})
    facts: dict[str, Fact] = {
        "uuid": kept.uuid,
        "power_limit_w": kept.limit_w,
        "cap_w": kept.cap_w,
        "remembered_at": kept.at.isoformat(),
        "pid": kept.pid,
    }
    try:
        change = setter.change(kept.uuid, kept.cap_w, kept.limit_w)
    except OSError as error:
        return _answer(False, f"{error}; {_by_hand(kept, place)}", facts)
    before, after = change
    facts["found_w"] = before.limit_w
    restored, was_ours = after.is_at(kept.limit_w), before.is_at(kept.cap_w)
    limit = f"the power limit of {kept.uuid}"
    if was_ours and not restored:
        because = (
            f"{limit} was put back to {kept.limit_w:g} W, and is {after.limit_w:g} W; "
            f"{_by_hand(kept, place)}"
        )
        return _answer(False, because, facts)
    if was_ours:
        because = (
            f"{limit} is put back to {kept.limit_w:g} W; it was {kept.cap_w:g} W, set by process "
            f"{kept.pid}"
        )
    elif restored:
        because = f"{limit} is {kept.limit_w:g} W, as it was before"
    else:
        because = (
            f"{limit} is {before.limit_w:g} W and not the {kept.cap_w:g} W that process "
            f"{kept.pid} set: somebody changed it since, so it is left as it is, and the "
            f"{kept.limit_w:g} W of before are forgotten"
        )
    try:
        failpoints.point("power_limit.before_forget")
        place.file.unlink()
        atomic_file.sync_folder(place.file.parent)
    except OSError as error:
        refusal = atomic_file.refusal(error, place.file)
        because += f"; {refusal}: it is looked at again at the next start"
    return _answer(restored, because, facts)


def _by_hand(kept: SavedLimit, place: _Place) -> str:
    return (
        f"it is tried again at the next start; by hand: nvidia-smi -i {kept.uuid} -pl "
        f"{kept.limit_w:g} as root, then remove {place.file}"
    )


def _told(error: OSError, path: Path) -> str:
    return str(error) if isinstance(error, LimitRefused) else f"{atomic_file.refusal(error, path)}"


def _answer(yes: bool, because: str, facts: Mapping[str, Fact]) -> Decision:
    return Decision(question="power_limit", yes=yes, because=because, facts=dict(facts))
