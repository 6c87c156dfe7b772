"""Selectors that are asked for together find what each of them would have found alone."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.v1alpha1 import LabelOperator
from modelrollout.core.evidence import Matcher, Selector
from modelrollout.core.together import together


def equal(label, value):
    return Matcher(label=label, value=value)


def matches(label, value):
    return Matcher(label=label, operator=LabelOperator.MATCHES, value=value)


def pods(*names):
    return matches("pod", f"(?:{'|'.join(map(re.escape, names))})-[a-z0-9]{{5}}")


def finds(matchers, labels):
    """As Prometheus does it: regular expressions match whole values, and what is missing is empty."""
    signs = {
        LabelOperator.EQUAL: lambda value, wanted: value == wanted,
        LabelOperator.NOT_EQUAL: lambda value, wanted: value != wanted,
        LabelOperator.MATCHES: lambda value, wanted: re.fullmatch(wanted, value) is not None,
        LabelOperator.NOT_MATCHES: lambda value, wanted: re.fullmatch(wanted, value) is None,
    }
    return all(signs[each.operator](labels.get(each.label, ""), each.value) for each in matchers)


def alone(selector, series):
    return [
        each
        for each in series
        if each["__name__"] == selector.metric and finds(selector.matchers, each)
    ]


def versions(metric, *more, label="version"):
    return [Selector(metric=metric, matchers=(*more, equal(label, each))) for each in ("v1", "v2")]


SHOP = equal("namespace", "shop")
FIVE = equal("class", "5")
USERS = matches("class", "5..?")


@pytest.mark.parametrize(
    ("selectors", "questions"),
    [
        # Two counters of two versions.
        ([*versions("judged", SHOP), *versions("wrong", SHOP)], 1),
        # Events that are part of the total.
        ([*versions("answers", SHOP), *versions("answers", SHOP, FIVE)], 1),
        # Pods, as we name them.
        ([Selector(metric="a", matchers=(SHOP, pods(each))) for each in ("v1-x", "v2.y")], 1),
        # What users wrote is Prometheus' to understand: versions together, counters apart.
        ([*versions("answers", SHOP), *versions("answers", SHOP, USERS)], 2),
        # Events that the total does not have, by a label that it has not: nobody wants the rest.
        ([*versions("judged", SHOP), *versions("wrong", SHOP, FIVE)], 2),
        # A user's own expression for the versions, as a backtest has it.
        ([Selector(metric="a", matchers=(matches("pod", f"v{each}-.*"),)) for each in (1, 2)], 0),
        ([Selector(metric="a", matchers=(equal("version", each),)) for each in ("", "v2")], 0),
        ([Selector(metric="a", matchers=(SHOP,))], 0),
    ],
)
def test_as_few_questions_as_can_be_told_apart(selectors, questions):
    assert len(together(selectors)) == questions


LABELS = st.fixed_dictionaries(
    {"__name__": st.sampled_from(["a", "b"])},
    optional={
        "version": st.sampled_from(["v1", "v2", "v.", "v1|v2"]),
        "pod": st.sampled_from(["v1-x-abcde", "v1-x-abcd", "v2.y-01234", "v2zy-01234"]),
        "class": st.sampled_from(["2", "5", "50"]),
        "namespace": st.sampled_from(["shop", "mill"]),
    },
)
MATCHERS = st.lists(
    st.sampled_from(
        [
            SHOP, FIVE, USERS, equal("version", "v1"), equal("version", "v2"),
            equal("version", "v."), equal("version", ""), pods("v1-x"), pods("v2.y", "v1-x"),
            Matcher(label="class", operator=LabelOperator.NOT_EQUAL, value="5"),
        ]
    ),
    max_size=3,
    unique=True,
)  # fmt: skip
SELECTORS = st.builds(
    lambda metric, matchers: Selector(metric=metric, matchers=tuple(matchers)),
    st.sampled_from(["a", "b"]),
    MATCHERS,
)


@given(st.lists(SELECTORS, min_size=1, max_size=4, unique=True), st.lists(LABELS, max_size=12))
def test_whoever_asks_together_gets_what_he_had_got_alone(selectors, series):
    for each in together(selectors):
        answer = [one for one in series if one["__name__"] in each.metrics]
        answer = [one for one in answer if finds(each.matchers, one)]
        for selector in each.rests:
            assert [one for one in answer if each.is_of(selector, one)] == alone(selector, series)


@given(st.lists(SELECTORS, min_size=1, max_size=4, unique=True), st.lists(LABELS, max_size=12))
def test_an_exact_question_finds_nothing_that_is_nobodys(selectors, series):
    for each in together(selectors):
        answer = [one for one in series if one["__name__"] in each.metrics]
        for one in (one for one in answer if finds(each.matchers, one)):
            if each.is_exact:
                assert any(each.is_of(selector, one) for selector in each.rests)


def test_a_question_is_exact_if_every_product_is_somebodys():
    (whole,) = together([*versions("judged"), *versions("wrong")])
    (part,) = together([versions("judged")[0], versions("wrong")[1]])

    assert whole.is_exact
    assert not part.is_exact


def test_no_more_is_asked_for_than_the_product_of_what_differs():
    (found,) = together([*versions("judged", SHOP), *versions("wrong", SHOP)])
    wanted = set(product(["judged", "wrong"], ["v1", "v2"]))

    assert set(found.metrics) == {name for name, _ in wanted}
    assert found.matchers == (SHOP, matches("version", "v1|v2"))
