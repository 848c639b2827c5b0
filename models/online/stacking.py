"""Stacks: online models over the members' predictions, each at its own learning rate.

Pure computation over blocks of records with numpy. For classes a stack is a softmax over the
members' log-probabilities with one weight a member and one bias a class; for two classes this is
logistic regression over log-odds. For values it is a linear model over the members' values, in
units of the target's own spread. Both learn prequentially by gradient steps of a constant rate. A
fast stack follows a change, and a slow one is exact where nothing changes: `models.online.blend`
finds out which one suits the stream. A member without a prediction contributes nothing.

Source: D. H. Wolpert, "Stacked generalization", Neural Networks 5 (1992), learned online.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.online.tracking import Flags, Floats

LEAST = 1e-3
"""Probabilities are cut to the range from here to 1 minus it, so that no logarithm dominates."""
_WEIGHT_BOUND = 10.0
_SURE = 300.0
"""A score beyond this is certainty, and its exponential is still a number."""
_FAR = 10.0
"""Values count as at most this many deviations from the mean."""
MEMORY = 1_000
"""Records over which the target's mean and deviation are taken."""


class ClassStacks:
    """Softmax stacks, one at each rate for each group of members.

    `groups` has the shape (groups, members), and says whom a stack hears. `weights` has the shape
    (stacks, members), group by group.
    """

    def __init__(self, rates: Sequence[float], groups: Flags) -> None:
        self.rates = np.tile(np.array([[rate] for rate in rates]), (len(groups), 1))
        self.heard = np.repeat(groups, len(rates), axis=0).astype(float)
        self.weights = self.heard / self.heard.sum(axis=1, keepdims=True)
        self.biases = np.zeros((len(self.rates), 0))

    def add_class(self) -> None:
        """Add a class after those known."""
        self.biases = np.pad(self.biases, ((0, 0), (0, 1)))

    def run(self, answers: Floats, awake: Flags, codes: NDArray[np.intp]) -> Floats:
        """Probabilities of n records, shape (n, stacks, classes); then learn the records.

        `answers` has the shape (n, members, classes). `codes` are the labels' places among the
        classes; -1: the record has no label.
        """
        logs = np.log(np.clip(np.where(awake[:, :, None], answers, 0.5), LEAST, 1.0 - LEAST))
        logs = np.where(awake[:, :, None], logs - logs.mean(axis=2, keepdims=True), 0.0)
        answered = np.empty((len(answers), *self.biases.shape))
        weights, biases = self.weights, self.biases
        # As in `models.online.tracking`, constants have the shape of what they change.
        rates = np.broadcast_to(self.rates, biases.shape).copy()
        targets = rates * np.eye(biases.shape[1])[:, None, :]
        # A member that a stack does not hear has no weight.
        highest = _WEIGHT_BOUND * self.heard
        lowest, ones = -highest, np.ones((biases.shape[1], biases.shape[1]))
        most = np.full_like(biases, _SURE)
        least = -most
        steps, moves = np.empty_like(biases), np.empty_like(weights)
        for inputs, turned, scores, code in zip(
            logs, logs.transpose(0, 2, 1).copy(), answered, codes.tolist(), strict=True
        ):
            np.dot(weights, inputs, out=scores)
            np.add(scores, biases, out=scores)
            np.maximum(scores, least, out=scores)
            np.minimum(scores, most, out=scores)
            np.exp(scores, out=scores)
            np.dot(scores, ones, out=steps)
            np.divide(scores, steps, out=scores)
            if code < 0:
                continue
            np.multiply(scores, rates, out=steps)
            np.subtract(targets[code], steps, out=steps)
            np.add(biases, steps, out=biases)
            np.dot(steps, turned, out=moves)
            np.add(weights, moves, out=weights)
            np.maximum(weights, lowest, out=weights)
            np.minimum(weights, highest, out=weights)
        return answered


class ValueStacks:
    """Linear stacks by normalised least mean squares, one at each rate for each group of members.

    `groups` and `weights` are as in `ClassStacks`. Values are measured from the target's running
    mean in units of its running deviation, both bounded, so that one extreme value cannot spoil the
    weights.
    Source: S. Haykin, "Adaptive Filter Theory", normalised LMS.
    """

    def __init__(self, rates: Sequence[float], groups: Flags, quantile: float = 0.5) -> None:
        self.rates = np.tile(np.array(rates), len(groups))
        self.heard = np.repeat(groups, len(rates), axis=0).astype(float)
        self.weights = self.heard / self.heard.sum(axis=1, keepdims=True)
        self.biases = np.zeros(len(self.rates))
        self.quantile = quantile
        self._seen = 0
        self._mean = 0.0
        self._variance = 0.0

    def run(self, answers: Floats, awake: Flags, labels: Floats) -> Floats:
        """Values of n records, shape (n, stacks); then learn the records.

        `answers` has the shape (n, members), `labels` (n,); NaN: the record has no label. A value
        is NaN where no member that the stack hears predicts.
        """
        answered = np.full((len(answers), len(self.rates)), np.nan)
        weights, biases, heard = self.weights, self.biases, self.heard
        voices = awake.astype(float) @ heard.T
        for index, label in enumerate(labels.tolist()):
            here, known = awake[index], voices[index] > 0.0
            inputs = outputs = None
            if not known.any():
                pass
            elif self._variance <= 0.0:
                # The deviation is unknown yet: the plain mean does not need it.
                total = heard @ np.where(here, answers[index], 0.0)
                np.divide(total, voices[index], out=answered[index], where=known)
            else:
                deviation = math.sqrt(self._variance)
                inputs = np.where(here, (answers[index] - self._mean) / deviation, 0.0)
                np.clip(inputs, -_FAR, _FAR, out=inputs)
                outputs = weights @ inputs + biases
                np.add(self._mean, deviation * outputs, out=answered[index], where=known)
            if label != label:
                continue
            if inputs is not None and outputs is not None:
                target = min(max((label - self._mean) / math.sqrt(self._variance), -_FAR), _FAR)
                errors = target - np.clip(outputs, -_FAR, _FAR)
                # The gradient of the expectile loss, which is the squared one for the median.
                errors *= np.where(errors > 0.0, 2.0 * self.quantile, 2.0 * (1.0 - self.quantile))
                steps = self.rates * errors * known / (1.0 + heard @ (inputs * inputs))
                biases += steps
                weights += steps[:, None] * (inputs * heard)
                np.clip(biases, -_WEIGHT_BOUND, _WEIGHT_BOUND, out=biases)
                np.clip(weights, -_WEIGHT_BOUND, _WEIGHT_BOUND, out=weights)
            self._learn_spread(label)
        return answered

    def _learn_spread(self, label: float) -> None:
        self._seen += 1
        share = 1.0 / min(self._seen, MEMORY)
        gap = label - self._mean
        self._mean += share * gap
        self._variance = (1.0 - share) * (self._variance + share * gap * gap)
