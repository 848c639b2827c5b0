"""The values of the story: an answer, and what is known beside the history. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

State = Literal["good", "watch", "act", "unknown"]
Value = str | int | float | bool | datetime | None


@dataclass(frozen=True)
class Answer:
    """One of the ten."""

    key: str
    question: str
    state: State
    short: str
    """The answer in a few words."""
    sentence: str
    """With why, since when, and the numbers that matter."""
    numbers: Mapping[str, Value] = field(default_factory=dict)
    """By name, with the unit in it."""
    sql: str = ""
    """Where the numbers come from; empty: from the checkpoint and files of the home."""
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Live:
    """What is known of a pipeline beside its history: its checkpoint's head, files of the home."""

    home: str
    file: str | None = None
    """The pipeline's TOML file, where it is known."""
    state: str = "unknown"
    """running, resting, not begun, unreadable or unknown."""
    because: str = ""
    """Why it is unreadable."""
    task: str = "classification"
    metric: str = "accuracy"
    """What it is judged by."""
    larger_is_better: bool = True
    position: int | None = None
    at: datetime | None = None
    """When the checkpoint was written."""
    candidate: Mapping[str, Any] | None = None
    """A version that won and waits for a person: version, since, gain."""
    intake: Mapping[str, Any] | None = None
    reads_from: str = "nvml"
    """What the gate reads; a recorded trace has a clock of its own."""
    override: Mapping[str, Any] | None = None
    """A person's answer in place of the gate's that is in force: answer, until, because."""
    override_problem: str = ""
    waiting_commits: int = 0
    """Commits that are not yet in the history."""
    labels: Mapping[str, Any] | None = None
    """Predictions of the service that wait for labels: waiting, oldest_at; None: there is none."""
    serves: Mapping[str, Any] | None = None
    """What the service answers with: champion, position, age_s, trouble; None: no service."""
    calibration_error: float | None = None
    """How far served probabilities are from the shares of hits that they promise, in the mean."""
    unknown_votes: Sequence[Mapping[str, Any]] = ()
    """Votes that the last drift check could not cast: vote, since, because, remedy."""
    stale_because: str = ""
    """Why the history could not be read anew; empty: it was."""

    def command(self, *words: str) -> str:
        """A command of thermodrift on this home, ready to be pasted."""
        return shlex.join(["thermodrift", "--home", self.home, *words])


def worst(states: Iterable[State]) -> State:
    """The state that asks for most."""
    found = set(states)
    ranked: tuple[State, ...] = ("act", "watch", "unknown")
    return next((each for each in ranked if each in found), "good")
