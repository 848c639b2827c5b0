"""Door to a device's power limit, lowered for as long as a job runs and put back whatever happens.

A driver keeps a limit when the process that set it is gone, and cannot tell what it was before. So
the old limit is on disk before the new one is set, and is put back at the job's end, on a signal or
an error, and after a kill by whoever starts next. A limit that is no longer the one that was set
here was changed by somebody, who is right: then it is only forgotten.

One process at a time has a device's limit, by a lock of the operating system that dies with it: as
long as that is held, what is remembered is nobody else's business. Which limit is to be set is
decided elsewhere (`cap`), and what sets it is handed in (`power.devices.device.LimitSetter`).
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

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from observability.core import atomic_file, failpoints, file_lock
from observability.core.decision import Decision, Fact
from power.devices.device import SAME_LIMIT_W, LimitChange, LimitRefused, LimitSetter

_KEPT_AS: Final = ".limit.json"
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class Remembered(BaseModel):
    """What a device's limit was, and what it was set to: the file that puts it back."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    uuid: str = Field(min_length=1)
    limit_w: float = Field(gt=0, description="What it was before, watts.")
    cap_w: float = Field(gt=0, description="What it is set to, watts.")
    pid: int = Field(description="The process that holds it, for people: the lock is what counts.")
    at: AwareDatetime = Field(description="When it was remembered.")


class Capping:
    """What became of a wish to lower a limit.

    `begun` answers whether it was lowered, and why not; `ended`, once the block is over and where
    there was something to put back, whether that was done. Both have the question "power_limit".
    """

    def __init__(self, begun: Decision) -> None:
        self.begun = begun
        self.ended: Decision | None = None

    @property
    def cap_w(self) -> float | None:
        """The cap that is in force in the block, watts; None: the limit is as it was found."""
        cap_w = self.begun.facts.get("cap_w")
        return float(cap_w) if self.begun and cap_w is not None else None

    @property
    def held(self) -> bool:
        """After the block, whether `cap_w` was still in force: only then it was measured by it."""
        if self.cap_w is None:
            return True
        found_w = None if self.ended is None else self.ended.facts.get("found_w")
        return found_w is not None and abs(float(found_w) - self.cap_w) <= SAME_LIMIT_W


@contextmanager
def capped(uuid: str, cap_w: float | None, kept_in: Path, setter: LimitSetter) -> Iterator[Capping]:
    """Run the block with the limit of `uuid` lowered to `cap_w` watts; None: as it is.

    The block runs in any case: a limit that could not be lowered is a "no" in what is told, and so
    is one that could not be put back. That one stays remembered in the folder `kept_in`, and is
    tried again by `restore_left_over`. Raises nothing of its own.
    """
    told = Capping(_answer(False, "no cap is asked for", {"uuid": uuid, "cap_w": None}))
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


def restore_left_over(kept_in: Path, setter: LimitSetter) -> list[Decision]:
    """Put back what processes that are gone have left; an answer for each device they left.

    Yes: its limit is what it was before. No: it stays remembered, or somebody else changed it; the
    answer says which. What a living process holds is left alone. Call it before a device is read
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
            # It may have been put back between the look into the folder and the lock.
            answer = _put_back(place, setter)
            found += [] if answer is None else [answer]
        finally:
            lock.release()
    return found


class _Place(NamedTuple):
    """Where a device's old limit is remembered, and the lock over it."""

    file: Path
    lock: Path

    @classmethod
    def of(cls, uuid: str, folder: Path) -> _Place:
        """A name of its own for each device, whatever it is called."""
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
    uuid: str, cap_w: float, place: _Place, setter: LimitSetter, facts: dict[str, Fact]
) -> Decision:
    try:
        for aside in place.file.parent.glob(f".{place.file.name}.*.tmp"):
            aside.unlink()
        return _lower(uuid, cap_w, place, setter, facts)
    except OSError as error:
        because = f"{_told(error, place.file)}; the job runs without this cap"
        # What was set all the same, or nobody knows whether it was, is put back at once.
        undone = _put_back(place, setter)
        also = f"; {undone.because}" if undone is not None else ""
        return _answer(False, f"{because}{also}", facts)


def _lower(
    uuid: str, cap_w: float, place: _Place, setter: LimitSetter, facts: dict[str, Fact]
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
    kept = Remembered(
        uuid=uuid, limit_w=found.limit_w, cap_w=cap_w, pid=os.getpid(), at=datetime.now(UTC)
    )
    _remember(kept, place)
    failpoints.point("limits.before_set")
    change = setter.change(uuid, found.limit_w, cap_w)
    failpoints.point("limits.after_set")
    _check(change, kept, place, setter)
    because = f"the limit of {uuid} is {cap_w:g} W, {found.limit_w:g} W before"
    return _answer(True, because, facts)


def _check(change: LimitChange, kept: Remembered, place: _Place, setter: LimitSetter) -> None:
    """Return if the cap is in force; else raise LimitRefused, with the reason."""
    before, after = change
    if not before.is_at(kept.limit_w):
        why = f"somebody set it to {before.limit_w:g} W in this moment, which counts"
    elif before.is_at(after.limit_w):
        why = "the driver says yes, and changes nothing; see whether nvidia-smi -pl can set it"
    elif not after.is_at(kept.cap_w):
        # What is to be put back is what the driver made of it.
        _remember(kept.model_copy(update={"cap_w": after.limit_w}), place)
        why = f"the driver makes {after.limit_w:g} W of it"
    else:
        # Asked anew: where nothing else uses the device, a driver without persistence forgets the
        # limit with the process that set it.
        now_w = setter.read(kept.uuid).limit_w
        if after.is_at(now_w):
            return
        why = f"a moment later it is {now_w:g} W; turn on persistence mode (nvidia-smi -pm 1)"
    raise LimitRefused(f"the power limit of {kept.uuid} cannot be {kept.cap_w:g} W: {why}")


def _remember(what: Remembered, place: _Place) -> None:
    atomic_file.write(place.file, what.model_dump_json(indent=2).encode())


def _put_back(place: _Place, setter: LimitSetter) -> Decision | None:
    """Put back what is remembered, and forget it; None where nothing is. Under the lock."""
    try:
        kept = Remembered.model_validate_json(place.file.read_bytes())
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
    facts["found_w"] = change.before.limit_w
    put_back = change.after.is_at(kept.limit_w)
    if change.before.is_at(kept.cap_w) and not put_back:
        because = (
            f"the power limit of {kept.uuid} was put back to {kept.limit_w:g} W, and is "
            f"{change.after.limit_w:g} W; {_by_hand(kept, place)}"
        )
        return _answer(False, because, facts)
    return _forget(place, _answer(put_back, _what_was_found(kept, change), facts))


def _what_was_found(kept: Remembered, change: LimitChange) -> str:
    """In words what became of a limit that is now as it should be, or not ours any more."""
    if change.before.is_at(kept.cap_w):
        return (
            f"the power limit of {kept.uuid} is put back to {kept.limit_w:g} W; it was "
            f"{kept.cap_w:g} W, set by process {kept.pid}"
        )
    if change.after.is_at(kept.limit_w):
        return f"the power limit of {kept.uuid} is {kept.limit_w:g} W, as it was before"
    return (
        f"the power limit of {kept.uuid} is {change.before.limit_w:g} W and not the "
        f"{kept.cap_w:g} W that process {kept.pid} set: somebody changed it since, so it is left "
        f"as it is, and the {kept.limit_w:g} W of before are forgotten"
    )


def _forget(place: _Place, answer: Decision) -> Decision:
    try:
        failpoints.point("limits.before_forget")
        place.file.unlink()
        atomic_file.sync_folder(place.file.parent)
    except OSError as error:
        also = (
            f"; {atomic_file.refusal(error, place.file)}: it is looked at again at the next start"
        )
        return answer.model_copy(update={"because": answer.because + also})
    return answer


def _by_hand(kept: Remembered, place: _Place) -> str:
    return (
        f"it is tried again at the next start; by hand: nvidia-smi -i {kept.uuid} -pl "
        f"{kept.limit_w:g} as root, then remove {place.file}"
    )


def _told(error: OSError, path: Path) -> str:
    return str(error) if isinstance(error, LimitRefused) else f"{atomic_file.refusal(error, path)}"


def _answer(yes: bool, because: str, facts: Mapping[str, Fact]) -> Decision:
    return Decision(question="power_limit", yes=yes, because=because, facts=dict(facts))
