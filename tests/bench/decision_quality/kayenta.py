"""
Kayenta's judge of one metric, from its description: Mann-Whitney with a Hodges-Lehmann tolerance.

Points of a canary (experiment) and of a baseline (control) that gets as much traffic are
compared. The confidence interval of their shift is that of R's wilcox.test (asymptotic, with
continuity correction). The canary is High when the interval's lower end is above 0.25 times the
estimated shift, its absolute value (tolerance), and the effect size reaches its threshold. The
defaults are those of the judge, whatever the number of looks: tolerance 0.25, confidence 0.98.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

Array: TypeAlias = NDArray[np.float64]

TOLERANCE = 0.25
CONFIDENCE = 0.98
SOLVER = 1e-4
"""Tolerance of R's root finder."""
EPSILON = 2.0**-52


def interval(experiment: Array, control: Array, confidence: float) -> tuple[float, float, float]:
    """
    Lower end, upper end and estimate of the experiment's shift against the control.

    R's tolerance of 0.0001 is kept: among points with many ties it is part of the judge.
    """
    low, high = experiment.min() - control.max(), experiment.max() - control.min()
    score_at = scores_of(experiment, control)
    quantile = -float(ndtri((1 - confidence) / 2))

    def root(level: float) -> float:
        if score_at(low) <= level:
            return float(low)
        if score_at(high) >= level:
            return float(high)
        distance = partial(_above, score_at, level)
        return float(brentq(distance, low, high, xtol=SOLVER, rtol=4 * EPSILON))

    return root(quantile), root(-quantile), root(0.0)


def _above(score_at: Callable[[float], float], level: float, shift: float) -> float:
    return score_at(shift) - level


def scores_of(experiment: Array, control: Array) -> Callable[[float], float]:
    """By shift: the rank sum of the experiment less the shift, as a normal score."""
    control = np.sort(control)
    m, n = len(experiment), len(control)
    own_ties = sum(_ties(np.unique(side, return_counts=True)[1]) for side in (experiment, control))

    def score_at(shift: float) -> float:
        shifted = experiment - shift
        over = np.searchsorted(control, shifted, side="left").sum()
        not_under = np.searchsorted(control, shifted, side="right").sum()
        ties = own_ties
        if over != not_under:
            both = np.concatenate([shifted, control])
            ties = _ties(np.unique(both, return_counts=True)[1])
        distance = (over + not_under - m * n) / 2
        return float((distance - 0.5 * np.sign(distance)) / _deviation(m, n, ties))

    return score_at


def classify(experiment: Sequence[float], control: Sequence[float], **settings: Any) -> str:
    """Pass, High, Low or Nodata, as the judge says. `settings` are named as in its tests."""
    if not len(experiment) or not len(control):
        return "Pass" if settings.get("nanStrategy") == "Replace" else "Nodata"
    x, y = np.asarray(experiment, dtype=float), np.asarray(control, dtype=float)
    if np.array_equal(np.sort(x), np.sort(y)) or x.min() == y.min() == x.max() == y.max():
        return "Pass"
    effect = _effect(x, y, settings.get("effectSizeMeasure", "meanRatio"))
    if x.min() == x.max() and y.min() == y.max():
        x, y = _spread(x), _spread(y)
    lower, upper, estimate = interval(x, y, settings.get("confLevel", CONFIDENCE))
    bound = settings.get("tolerance", TOLERANCE) * abs(estimate)
    small, large = settings.get("effectSizeThresholds", (1.0, 1.0))
    direction = settings.get("direction", "Either")
    is_undefined = np.isnan(effect)
    if direction != "Decrease" and lower > bound and (is_undefined or effect >= large):
        return "High"
    if direction != "Increase" and upper < -bound and (is_undefined or effect <= small):
        return "Low"
    return "Pass"


def is_critical(experiment: Sequence[float], control: Sequence[float], settings: Mapping) -> bool:
    """Whether the verdict alone fails the canary: a metric marked critical, and far enough off."""
    if not settings["isCritical"]:
        return False
    verdict = classify(experiment, control, **settings)
    if verdict in {"Pass", "Nodata"}:
        return verdict == "Nodata"
    measure = settings["effectSizeMeasure"]
    effect = _effect(np.asarray(experiment), np.asarray(control), measure)
    small, large = settings["criticalThresholds"]
    is_far: Callable[[float], bool] = {
        "High": lambda size: size >= large,
        "Low": lambda size: size <= small,
    }[verdict]
    return bool(np.isnan(effect) or is_far(effect))


def _effect(experiment: Array, control: Array, measure: str) -> float:
    """How large the difference is; NaN where the ratio of the means is not defined."""
    if measure == "cles":
        differences = experiment[:, np.newaxis] - control
        return float((differences > 0).mean() + 0.5 * (differences == 0).mean())
    if min(experiment.mean(), control.mean()) == 0:
        return float("nan")
    return float(experiment.mean() / control.mean())


def _spread(constant: Array) -> Array:
    """Points that are all the same have no ranks; the judge adds noise of a hundred-thousandth."""
    noise = ndtri((np.arange(len(constant)) + 0.5) / len(constant))
    return np.asarray(constant * (1 + 1e-5 * noise))


def first_high(experiment: Array, control: Array, *, least: int) -> NDArray[np.int64]:
    """
    The first point at which the judge, asked after each, says High; the number of points if never.

    Shapes are (points, runs), each run a canary of its own, asked from the `least`-th point on.
    """
    points, runs = experiment.shape
    found = np.full(runs, points)
    for point, score in enumerate(running_scores(experiment, control)):
        if point + 1 < least:
            continue
        # The score falls as the shift grows: what is not significant at 0 is not High.
        doubtful = np.flatnonzero((found == points) & (score > -ndtri((1 - CONFIDENCE) / 2)))
        for run in doubtful:
            x, y = experiment[: point + 1, run], control[: point + 1, run]
            if classify(x, y) == "High":
                found[run] = point
    return found


def running_scores(experiment: Array, control: Array) -> list[Array]:
    """The standardised rank sum of each run without a shift, after each point."""
    over, ties, scores = 0.0, 0.0, []
    for i, (x, y) in enumerate(zip(experiment, control, strict=True)):
        before_x, before_y = experiment[:i], control[:i]
        beats = (x > before_y).sum(axis=0) + (before_x > y).sum(axis=0) + (x > y)
        draws = (x == before_y).sum(axis=0) + (before_x == y).sum(axis=0) + (x == y)
        over = over + beats + 0.5 * draws
        # A group of t equal points adds t^3 - t; one more adds 3 t (t + 1).
        for new, earlier in ((x, (before_x, before_y)), (y, (experiment[: i + 1], before_y))):
            same = sum((new == each).sum(axis=0) for each in earlier)
            ties = ties + 3.0 * same * (same + 1)
        distance = over - (i + 1) ** 2 / 2
        deviation = _deviation(i + 1, i + 1, ties)
        scores.append((distance - 0.5 * np.sign(distance)) / np.maximum(deviation, 1e-12))
    return scores


def _ties(sizes: NDArray[np.int64]) -> float:
    return float((sizes.astype(float) ** 3 - sizes).sum())


def _deviation(m: int, n: int, ties: float | Array) -> float | Array:
    both = m + n
    return np.sqrt(m * n / 12 * (both + 1 - ties / (both * (both - 1))))
