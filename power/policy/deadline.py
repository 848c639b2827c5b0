"""Decide what happens to a request that waits: its deadline, and how its urgency grows."""

from __future__ import annotations

from observability.core.decision import Decision, Fact
from power.core.gate_config import GateConfig


def at_deadline(waited_s: float, gate_config: GateConfig) -> Decision:
    """Decide whether a deferred request has reached its deadline; a yes says what happens then.

    `waited_s` is the time since the request was made, seconds. NaN is no proof that the deadline
    has passed: the request keeps waiting.
    """
    over = waited_s >= gate_config.deadline_s
    facts: dict[str, Fact] = {
        "waited_s": waited_s,
        "deadline_s": gate_config.deadline_s,
        "at_deadline": gate_config.at_deadline,
    }
    outcome = {
        "run": "it runs, though the gate is closed (at_deadline = 'run')",
        "capped": "it runs under a power limit (at_deadline = 'capped')",
        "skip": "it is skipped (at_deadline = 'skip')",
    }[gate_config.at_deadline]
    if not over:
        outcome = f"it keeps waiting, then at_deadline = {gate_config.at_deadline!r} applies"
    because = f"waited {waited_s:.0f} s of at most {gate_config.deadline_s:.0f} s: {outcome}"
    return Decision(question="deadline", yes=over, because=because, facts=facts)


def urgency(waited_s: float, severity: float, gate_config: GateConfig) -> float:
    """Return the urgency of a request, 0 to 1, by its wait (seconds) and the drift (0 to 1).

    NaN adds no urgency.
    """
    waits = waited_s / gate_config.deadline_s if gate_config.deadline_s > 0 else 1.0
    parts = ((gate_config.urgency_of_waiting, waits), (gate_config.urgency_of_drift, severity))
    total = sum(weight * min(max(share, 0.0), 1.0) for weight, share in parts if share == share)
    return min(total, 1.0)
