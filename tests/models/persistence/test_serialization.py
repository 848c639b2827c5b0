"""Deep models become bytes and come back, and no limit of the process is changed by it."""

from __future__ import annotations

import pickle
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from river import tree

from models.persistence import serialization
from observability.core.errors import ThermodriftError

DEEP = 50_000


class Slotted:
    """A node without a dict, as river's compiled ones are."""

    __slots__ = ("next", "value")

    def __init__(self, value: int, following: Slotted | None) -> None:
        self.value = value
        self.next = following


class Plain:
    """A node with a dict, as most Python classes have."""

    def __init__(self, value: int, following: Plain | None) -> None:
        self.value = value
        self.next = following


class Endless:
    """Pickles into itself without end."""

    def __reduce__(self) -> tuple[type, tuple[Endless]]:
        return Endless, (Endless(),)


@pytest.fixture(autouse=True)
def limits_stay() -> Iterator[None]:
    """Every test leaves the recursion limit and the threads' stack as they were."""
    before = sys.getrecursionlimit(), threading.stack_size()
    yield
    assert before == (sys.getrecursionlimit(), threading.stack_size())


@pytest.mark.parametrize("kind", [Slotted, Plain])
def test_a_chain_of_fifty_thousand_nodes_comes_back(kind: type[Slotted] | type[Plain]) -> None:
    """Far beyond the standard pickler's depth, every node keeps its value and its place."""
    chain = None
    for value in range(DEEP):
        chain = kind(value, chain)  # type: ignore[arg-type]  # a chain is of one kind throughout
    node = serialization.loads(serialization.dumps(chain))
    values = []
    while node is not None:
        assert isinstance(node, kind)
        values.append(node.value)
        node = node.next
    assert list(range(DEEP - 1, -1, -1)) == values


def test_what_occurs_twice_is_still_one_object() -> None:
    """The fall-back keeps identity, as trees share statistics between their nodes."""
    shared = [1]
    chain: Plain | None = None
    for value in range(5000):
        chain = Plain(value, chain)
    again: Any = serialization.loads(serialization.dumps((shared, shared, chain)))
    first, second, _ = again
    assert first is second


def test_a_river_tree_predicts_the_same_after_the_round_trip() -> None:
    """A grown tree comes back with the same answers, also by the fall-back."""
    rng = random.Random(3)
    model = tree.HoeffdingTreeClassifier(grace_period=20, delta=0.1)
    rows = [{"a": rng.random(), "b": rng.random()} for _ in range(1500)]
    for row in rows:
        model.learn_one(row, (row["a"] > 0.5) != (row["b"] > 0.3))
    assert model.n_nodes > 3
    expected = [model.predict_proba_one(row) for row in rows]
    for content in (serialization.dumps(model), serialization._dumps_deep(model)):
        again: Any = serialization.loads(content)
        assert expected == [again.predict_proba_one(row) for row in rows]


def test_a_deep_river_tree_is_saved() -> None:
    """A tree that keeps splitting on one side comes back, whichever pickler its depth asks for."""
    model = tree.HoeffdingTreeRegressor(
        grace_period=2, delta=0.9, tau=0.99, max_depth=5000, leaf_prediction="mean"
    )
    for turn in range(1800):
        model.learn_one({"x": float(turn)}, float(turn**2))
    answers = [model.predict_one({"x": float(x)}) for x in range(0, 1800, 7)]
    for content in (serialization.dumps(model), serialization._dumps_deep(model)):
        again: Any = serialization.loads(content)
        assert answers == [again.predict_one({"x": float(x)}) for x in range(0, 1800, 7)]


def test_what_has_no_bytes_is_refused_by_name() -> None:
    """The message names the class and says what to do about it."""
    with pytest.raises(serialization.CannotPickle, match=r"a dict cannot be saved.*top level"):
        serialization.dumps({"lock": threading.Lock()})


def test_what_has_no_bytes_deep_down_is_refused_too() -> None:
    """A failure inside the fall-back's thread comes out of it."""
    chain: Plain | None = Plain(0, None)
    chain.value = threading.Lock()  # type: ignore[union-attr]  # what must not be there
    for value in range(5000):
        chain = Plain(value, chain)
    with pytest.raises(serialization.CannotPickle, match="cannot be saved"):
        serialization.dumps(chain)


def test_nesting_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fall-back has a limit too, and says which."""
    monkeypatch.setattr(serialization, "FRAMES", 20_000)
    with pytest.raises(serialization.CannotPickle, match="deeper than 20,000 frames"):
        serialization.dumps(Endless())


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"not a pickle", b"cno_such\nName\n."])
def test_damaged_bytes_are_refused(content: bytes) -> None:
    """Whatever pickle makes of them, one error comes out, with its cause."""
    with pytest.raises(serialization.CannotLoad, match="saved bytes do not load") as caught:
        serialization.loads(content)
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value, ThermodriftError)


@pytest.mark.parametrize("operation", [serialization.dumps, serialization.loads])
def test_want_of_memory_is_not_a_fault_of_the_model(
    monkeypatch: pytest.MonkeyPatch, operation: object
) -> None:
    """MemoryError passes as it is: no advice about the model would help."""

    def starve(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pickle, "dumps", starve)
    monkeypatch.setattr(pickle, "loads", starve)
    with pytest.raises(MemoryError):
        operation(b"")  # type: ignore[operator]  # either of two functions
