"""The online members: river models that predict each record before they learn it.

Pure computation: no disk, no clock. A member is a name from `recipes.RECIPES`, or
``module:factory`` for a user's own model. Missing numbers are imputed by their running mean and
missing categories are a category of their own, so that a blank cell never reaches a model. A
prediction that is not finite is dropped, and counted in `non_finite_count`.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.core import metrics, user_code
from models.core.metrics import Measure
from models.core.prediction import Answer
from models.core.record_schema import Features, Label, LabelKind, Schema, Task
from models.online import recipes
from models.persistence import serialization
from observability.core.errors import BadConfiguration

MISSING = "(missing)"
"""The category that stands for a blank cell."""

# river's binary models answer True and False for 1 and 0, which are whole numbers to Python.
_CLASSES: Mapping[LabelKind, tuple[type, ...]] = {
    "str": (str,),
    "int": (int, numbers.Integral),
    "float": (float, numbers.Real),
}


DEFAULT_MEMBERS = ("linear", "linear_fast", "hoeffding_adaptive_tree")


class OnlineConfig(BaseModel):
    """The online members: the table [online]."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    members: tuple[str, ...] = Field(
        default=DEFAULT_MEMBERS,
        min_length=1,
        description="Models that learn side by side: linear, linear_fast, hoeffding_adaptive_tree, "
        "adaptive_random_forest, or module:factory (a module beside the pipeline file or "
        "installed).",
    )
    seed: int = Field(default=0, ge=0, description="Seed of whatever is random in a member.")
    params: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Parameters handed to river's model, by member; linear models take a rate too.",
    )

    @model_validator(mode="after")
    def _members_are_distinct(self) -> OnlineConfig:
        if len(set(self.members)) < len(self.members):
            raise ValueError("each member was allowed once")
        if unknown := self.params.keys() - set(self.members):
            raise ValueError(
                f"params of members were allowed, and {', '.join(sorted(unknown))} is none of "
                f"{', '.join(self.members)}"
            )
        return self


class OnlineMember:
    """A river model with one interface for classes and values: `predict`, then `learn`."""

    since = 0
    """Position at which it began anew: what was answered in its name before was another model."""

    def __init__(self, model: Any, task: Task, label_kind: LabelKind | None = None) -> None:
        self.model = model
        self.task = task
        self.label_kind = label_kind
        """The type of the classes in this stream; None: the model's answers are not checked."""
        self.non_finite_count = 0
        """Records for which the model's prediction was not finite."""
        self._lowest, self._highest = math.inf, -math.inf
        """The range of the values learned, in regression."""

    def predict(self, record: Features) -> Answer:
        """Probabilities by class (summing to 1) or a value; None before anything is known.

        A value is clipped to the range of those learned: a linear model of few records, also in the
        leaves of trees, can be wrong by a factor of 10,000 if a feature is larger than before.
        Raises TypeError if the model answers a class that this stream cannot have.
        """
        if self.task == "regression":
            value: float | None = self.model.predict_one(record)
            if value is not None and not math.isfinite(value):
                self.non_finite_count += 1
                return None
            if value is None or self._lowest > self._highest:
                return value
            return min(max(value, self._lowest), self._highest)
        masses = self.model.predict_proba_one(record)
        if self.label_kind is not None:
            for label in masses:
                if not isinstance(label, _CLASSES[self.label_kind]):
                    here = "text" if self.label_kind == "str" else "whole numbers"
                    raise TypeError(
                        f"the model answered the class {label!r} ({type(label).__name__}), and the "
                        f"classes of this stream are {here}. It must answer the labels that it was "
                        "given; a binary model of river's answers True and False, which suits the "
                        "labels 1 and 0 alone"
                    )
        # Trees answer masses: all zeros in a new leaf. The exact sum is the same in whatever order
        # river's sets give the classes.
        total = math.fsum(masses.values())
        if masses and min(masses.values()) < 0.0:
            total = math.nan
        if 0.999999 < total < 1.000001:
            return masses  # type: ignore[no-any-return]  # river is untyped
        if 0.0 < total < math.inf:
            return {label: mass / total for label, mass in masses.items()}
        if total != 0.0:
            self.non_finite_count += 1
        return None

    def learn(self, record: Features, label: Label) -> None:
        """Learn one record."""
        self.model.learn_one(record, label)
        if self.task == "regression":
            value = float(label)
            self._lowest, self._highest = min(self._lowest, value), max(self._highest, value)


class RecordRefused(Exception):
    """A model raised while it learned a record: the members are invalid and must be restored.

    river's `learn_one` is not atomic, so the caller goes back to its checkpoint and processes the
    batch again without this record.
    """

    def __init__(self, index: int, member: str, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.index = index
        self.member = member


@dataclass
class OnlineMembers:
    """The online members by name, and what completes a record for all of them."""

    members: dict[str, OnlineMember]
    imputer: Any = None
    """A transformer of river's; None: records come complete."""

    def run(
        self,
        rows: Sequence[Features],
        labels: Sequence[Label | None],
        stop: Callable[[], bool] = bool,
    ) -> dict[str, list[Answer]]:
        """Every member predicts and then learns each record; a label of None is not learned.

        One member after the other goes through all records: in one loop for all, each would
        displace the others' code from the processor's cache with every record. When `stop` returns
        true, the remaining records are left out, for every member. Raises RecordRefused.
        """
        # Only the first member is asked to stop: the others follow it.
        coming: Iterable[Features] = self._complete(rows, labels, stop)
        answers: dict[str, list[Answer]] = {}
        for name, member in self.members.items():
            answered: list[Answer] = []
            passed: list[Features] = []
            for index, row in enumerate(coming):
                passed.append(row)
                label = labels[index]
                try:
                    answered.append(member.predict(row))
                    if label is not None:
                        member.learn(row, label)
                except MemoryError:
                    # The machine's fault and not the record's, which is not rejected for it.
                    raise
                except (Exception, SystemExit) as error:
                    raise RecordRefused(index, name, error) from error
            answers[name] = answered
            coming = passed
        return answers

    def _complete(
        self, rows: Sequence[Features], labels: Sequence[Label | None], stop: Callable[[], bool]
    ) -> Iterator[Features]:
        """The records without a blank, up to the one before which `stop` returns true."""
        for row, label in zip(rows, labels, strict=True):
            if stop():
                return
            complete = row if self.imputer is None else self.imputer.transform_one(row)
            if label is not None and self.imputer is not None:
                self.imputer.learn_one(row)
            yield complete


def build(
    config: OnlineConfig,
    schema: Schema,
    measure: Measure | None = None,
    beside: Path | None = None,
) -> OnlineMembers:
    """New members. Raises BadConfiguration if one cannot be built."""
    from river import preprocessing, stats

    imputer = preprocessing.StatImputer(
        *[(name, stats.Mean()) for name in schema.numbers],
        *[(name, MISSING) for name in schema.categories],
    )
    members = {name: build_member(name, config, schema, measure, beside) for name in config.members}
    return OnlineMembers(members, imputer)


def build_member(
    name: str,
    config: OnlineConfig,
    schema: Schema,
    measure: Measure | None = None,
    beside: Path | None = None,
) -> OnlineMember:
    """A new member. Raises BadConfiguration if it cannot be built."""
    params = config.params.get(name, {})
    if ":" in name:
        model = _user_model(name, config.seed, params, schema, beside)
    elif name not in recipes.RECIPES:
        raise BadConfiguration(
            f"online.members: {name!r} is no member; choose of "
            f"{', '.join(sorted(recipes.RECIPES))}, or name your own as module:factory"
        )
    else:
        measure = measure or metrics.measure("auto", schema.task)
        try:
            model = recipes.RECIPES[name](schema, config.seed, params, measure)
        except (TypeError, ValueError) as error:
            raise BadConfiguration(f"online.params: {name} refuses them: {error}") from error
    return OnlineMember(model, schema.task, schema.label_kind)


def _user_model(
    name: str, seed: int, params: Mapping[str, Any], schema: Schema, beside: Path | None
) -> Any:
    from river import base

    make = user_code.find(name, beside)
    offered = {"task": schema.task, "seed": seed, **params}
    takes = inspect.signature(make).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
        offered = {key: value for key, value in offered.items() if key in takes or key in params}
    try:
        model = make(**offered)
    except (TypeError, ValueError) as error:
        raise BadConfiguration(f"online.members: {name} failed: {error}") from error
    asked = "predict_one" if schema.task == "regression" else "predict_proba_one"
    fits = isinstance(model, base.Estimator) and hasattr(model, "learn_one")
    if not (fits and hasattr(model, asked)):
        kind = "Regressor" if schema.task == "regression" else "Classifier"
        raise BadConfiguration(
            f"online.members: {name} answered a {type(model).__name__}; a river model "
            f"(a class of your own derives from river.base.{kind}) with learn_one and {asked} was "
            "expected"
        )
    try:
        serialization.loads(serialization.dumps(model))
    except (serialization.CannotPickle, serialization.CannotLoad) as error:
        raise BadConfiguration(
            f"online.members: {name} made a model that no checkpoint can keep: {error}"
        ) from error
    return model
