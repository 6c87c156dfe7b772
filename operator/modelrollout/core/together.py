"""
Several selectors as one, whose series can be told apart again.

A question costs an operator a hundred times what one more series in its answer does. Versions
differ by a label's value, and counters by their name, so the raw samples of both versions of both
counters come in one answer; it is of one moment, too. Where that would find what nobody wants, or
the series cannot be told apart for sure, selectors are asked for one by one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelrollout.api.v1alpha1 import LabelOperator
from modelrollout.core.evidence import Matcher, Selector

OUR_PODS = re.compile(r"\(\?:[A-Za-z0-9\\.|-]*\)-\[a-z0-9\]\{5\}")
"""The one form of a regular expression that means the same here and there for sure."""

Rest = tuple[Matcher, ...]


@dataclass(frozen=True, slots=True)
class Together:
    """What to ask for, and what of the answer belongs to whom."""

    metrics: tuple[str, ...]
    matchers: tuple[Matcher, ...]
    rests: Mapping[Selector, Rest]
    """Of each selector, what the others do not say."""
    is_exact: bool
    """Whether each series of the answer must be somebody's."""

    def is_of(self, selector: Selector, labels: Mapping[str, str]) -> bool:
        """Whether a series of the answer is one that the selector alone would have found."""
        return labels.get("__name__") == selector.metric and all(
            _fits(each, labels.get(each.label, "")) for each in self.rests[selector]
        )


def together(selectors: Sequence[Selector]) -> tuple[Together, ...]:
    """As few questions as can be for these; who is in none of them is asked for alone."""
    whole = _joined(selectors)
    if whole is not None:
        return (whole,)
    by_metric: dict[tuple[str, int], list[Selector]] = {}
    for each in selectors:
        by_metric.setdefault((each.metric, len(each.matchers)), []).append(each)
    pairs = map(_joined, by_metric.values())
    return tuple(each for each in pairs if each is not None)


def _joined(selectors: Sequence[Selector]) -> Together | None:
    """All in one; None where that is not possible, or there is nothing to join."""
    if len(selectors) < 2:  # noqa: PLR2004
        return None
    common = [each for each in selectors[0].matchers if _is_in_all(each, selectors)]
    rests = {one: tuple(each for each in one.matchers if each not in common) for one in selectors}
    if not all(map(_can_be_told, rests.values())):
        return None
    widest = [
        rest
        for one, rest in rests.items()
        if not any(_is_within(one, other, rests) for other in selectors)
    ]
    labels = [{each.label for each in rest} for rest in widest]
    if any(each != labels[0] for each in labels):
        # Without a label of some of them, it would be asked for what nobody wants.
        return None
    metrics = tuple(dict.fromkeys(each.metric for each in selectors))
    varying = [_values(label, widest) for label in sorted(labels[0])]
    return Together(
        metrics=metrics,
        matchers=(*common, *map(_any_of, varying)),
        rests=rests,
        is_exact=len(widest) == math.prod(map(len, [metrics, *varying])),
    )


def _is_in_all(matcher: Matcher, selectors: Sequence[Selector]) -> bool:
    return all(matcher in each.matchers for each in selectors)


def _is_within(one: Selector, other: Selector, rests: Mapping[Selector, Rest]) -> bool:
    """Whether the other one finds all that this one does, and more."""
    return one.metric == other.metric and set(rests[other]) < set(rests[one])


def _can_be_told(rest: Rest) -> bool:
    labels = [each.label for each in rest]
    return len(set(labels)) == len(labels) and all(
        (each.operator is LabelOperator.EQUAL and each.value)
        or (each.operator is LabelOperator.MATCHES and OUR_PODS.fullmatch(each.value))
        for each in rest
    )


def _values(label: str, rests: Sequence[Rest]) -> Rest:
    return tuple(dict.fromkeys(each for rest in rests for each in rest if each.label == label))


def _any_of(matchers: Rest) -> Matcher:
    """One for all of a label's."""
    if len(matchers) == 1:
        return matchers[0]
    values = (
        each.value if each.operator is LabelOperator.MATCHES else re.escape(each.value)
        for each in matchers
    )
    label, operator = matchers[0].label, LabelOperator.MATCHES
    return Matcher(label=label, operator=operator, value="|".join(values))


def _fits(matcher: Matcher, value: str) -> bool:
    if matcher.operator is LabelOperator.EQUAL:
        return value == matcher.value
    return re.fullmatch(matcher.value, value) is not None
