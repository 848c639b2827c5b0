"""What becomes of a request that waits: its deadline, and how its urgency grows."""

from __future__ import annotations

from observability.core.decision import Decision, Fact
from power.core.gate_config import GateLimits


def at_deadline(waited_s: float, limits: GateLimits) -> Decision:
    """Decide whether a deferred request has come to its end; yes says what becomes of it.

    `waited_s` is seconds since the request was asked for. A wait that is not a number is no proof
    that the time is over: the request keeps waiting.
    """
    over = waited_s >= limits.deadline_s
    facts: dict[str, Fact] = {
        "waited_s": waited_s,
        "deadline_s": limits.deadline_s,
        "at_deadline": limits.at_deadline,
    }
    waited = f"waited {waited_s:.0f} s of at most {limits.deadline_s:.0f} s"
    if not over:
        because = f"{waited}: it keeps waiting, then at_deadline = {limits.at_deadline!r} applies"
    elif limits.at_deadline == "run":
        because = f"{waited}: it runs, though the gate is closed (at_deadline = 'run')"
    elif limits.at_deadline == "capped":
        because = f"{waited}: it runs under a power limit (at_deadline = 'capped')"
    else:
        because = f"{waited}: it is skipped (at_deadline = 'skip')"
    return Decision(question="deadline", yes=over, because=because, facts=facts)


def urgency(waited_s: float, severity: float, limits: GateLimits) -> float:
    """How urgent a request is, 0 to 1: by how long it waits, and by how bad the drift is (0 to 1).

    What is not a number urges nothing.
    """
    waits = waited_s / limits.deadline_s if limits.deadline_s > 0 else 1.0
    parts = ((limits.urgency_of_waiting, waits), (limits.urgency_of_drift, severity))
    told = sum(weight * min(max(share, 0.0), 1.0) for weight, share in parts if share == share)
    return min(told, 1.0)
