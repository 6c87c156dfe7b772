"""A report says what was decided, with the numbers, and shows text that users wrote as text."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from modelrollout.api.v1alpha1 import Phase
from modelrollout.core.evidence import Histogram, Kind
from modelrollout.core.trace import Guardrail, Trace
from modelrollout.report.course import courses_of, traffic_of
from modelrollout.report.forest import effects_of
from modelrollout.report.markup import VOID, Markup, tag
from modelrollout.report.page import page, sentence
from modelrollout.report.words import bound, percent
from modelrollout.stats.bounds import Bound
from traces import a_level, everything, traces_of
from walk import BAD, Walk

HOSTILE = "</title></style><script>alert(1)</script>\"'><img src=x onerror=alert(2)> $\\frac{1}{0}$ --> \x00\x1b[31m\u202e 雪"


class Reader(HTMLParser):
    """What a browser would take for elements and for text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, name, attributes):
        self.seen.add(name)
        self.attributes |= {key for key, _ in attributes}
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.seen.add(name)
        self.attributes |= {key for key, _ in attributes}

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@cache
def a_page(text: str = "plain") -> str:
    return page(everything(text))


@pytest.fixture(scope="module")
def rolled_back() -> Trace:
    walk = Walk()
    for _ in range(6):
        walk.step()
    walk.until(Phase.ROLLING_BACK, traffic=BAD)
    return traces_of(walk)[0]


def test_the_verdict_comes_first_with_its_numbers(rolled_back):
    html = page(rolled_back)

    heading = re.search(r"<h1>(.*?)</h1>", html)
    assert heading is not None
    assert "ranker-v2 was rolled back at 10 %: errors: candidate" in heading[1]
    assert html.index("<h1>") < html.index("<svg")
    assert "Rolled back: guardrail breached" in html


def test_the_same_trace_gives_the_same_page(rolled_back):
    assert page(rolled_back) == page(rolled_back)


def test_all_sections_are_there_for_all_kinds_of_guardrails():
    reader = read(a_page())

    said = "".join(reader.text)
    for title in (
        "Traffic",
        "Guardrails",
        "Distributions",
        "Slices",
        "Shadow disagreements",
        "Decisions",
        "Environment",
    ):
        assert title in said
    for name in ("errors", "latency", "p99", "restarts", "flips", "score", "memory"):
        assert name in said
    assert "98.0\N{NO-BREAK SPACE}% of the copied requests could be compared" in said
    assert "Counted at 3 thresholds" in said


def test_whatever_users_write_is_text():
    reader = read(a_page(HOSTILE))

    assert not reader.seen & {"script", "img", "iframe", "object", "a", "link", "base", "form"}
    assert not any(each.startswith("on") for each in reader.attributes)
    assert "src" not in reader.attributes
    said = "".join(reader.text)
    assert "<script>alert(1)</script>" in said
    assert not set("\x00\x1b\u202e") & set(said)


def test_pages_fetch_nothing_and_run_nothing():
    html = a_page()

    assert "default-src &#x27;none&#x27;" in html
    assert not re.search(r"(?:src|href)=\"(?!#)", html)
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", html)


def test_no_two_elements_have_one_name():
    names = re.findall(r'\bid="([^"]*)"', a_page())

    assert len(names) == len(set(names))


def test_colours_are_the_pages_own():
    html = a_page()
    drawn = html[html.index("<svg") :]

    assert "var(--stable)" in drawn
    assert "var(--candidate)" in drawn
    assert not re.findall(r"#[0-9a-f]{6}", drawn)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_trace_of_hardly_anything_is_a_page_too(kept):
    whole = everything()
    few = replace(
        whole,
        points=whole.points[:kept],
        decisions=(),
        slices=(),
        stable=None,
        ended=None,
        outcome="",
    )

    reader = read(page(few))

    assert "is on trial: it is not decided yet" in "".join(reader.text)


def test_whole_histograms_take_the_place_of_thresholds():
    bounds = (0.1, 0.5, 1.0, float("inf"))
    stable = Histogram(bounds=bounds, cumulative=(90.0, 95.0, 99.0, 100.0))
    candidate = Histogram(bounds=bounds, cumulative=(80.0, 95.0, 99.0, 100.0))

    html = page(everything(), {"latency": (stable, candidate)})

    assert "All 3 buckets, as Prometheus has them" in html


def test_figures_begin_anew_in_each_step():
    errors = courses_of(everything())[0]

    assert [each.share for each in errors.stretches] == [10, 25]
    assert [each.rows[1][0] for each in errors.stretches] == [5000.0, 5000.0]
    assert errors.totals[1] == (10_000.0, 300.0)
    assert all(
        low <= value <= high
        for s in errors.stretches
        for low, value, high in zip(
            s.candidate.lower, s.candidate.values, s.candidate.upper, strict=True
        )
    )


def test_a_threshold_where_versions_differ_is_shown():
    trace = everything()
    latency = courses_of(trace)[1]

    assert latency.columns == (1, 1)


def test_requests_per_second_are_those_between_two_counts():
    trace = everything()
    points = tuple(
        replace(point, guardrails=(a_level("errors", index % 5, until=point.time),))
        for index, point in enumerate(trace.points)
    )

    found = traffic_of(replace(trace, points=points))

    assert {each for each in found.candidate if each == each} == {1000 / 60}  # noqa: PLR0124
    assert {each for each in found.stable if each == each} == {9000 / 60}  # noqa: PLR0124


def test_where_no_step_was_counted_twice_there_is_no_empty_panel_of_requests(rolled_back):
    once = everything()

    assert not traffic_of(once).is_known
    assert "Requests per second are not shown" in a_page()
    assert "requests that each version answered" not in a_page()
    assert traffic_of(rolled_back).is_known
    assert "requests that each version answered" in page(rolled_back)


def test_slices_stand_below_all_requests_with_their_bounds():
    trace = everything()

    whole, bad, none = effects_of(
        trace.guardrails[0], trace.slices, ((9000.0, 90.0), (1000.0, 30.0))
    )

    assert whole.is_whole
    assert whole.ratio == pytest.approx(3)
    assert whole.low < 3 < whole.high
    assert bad.is_named
    assert (none.ratio, none.is_named) == (0.0, False)


@pytest.mark.parametrize(
    ("outcome", "message", "says"),
    [
        ("Promoted", "", "ranker-v2 was promoted after 9 min: it has all traffic"),
        (
            "Replaced",
            "another candidate took its place",
            "ranker-v2 was taken back after 9 min: another",
        ),
        ("Aborted", "by ada", "ranker-v2 was rolled back after 9 min: by ada"),
        ("", "", "ranker-v2 is on trial: it is not decided yet"),
    ],
)
def test_every_outcome_is_a_sentence(outcome, message, says):
    whole = everything()
    candidate = replace(whole.candidate, deployment="ranker-v2")

    said = sentence(replace(whole, candidate=candidate, outcome=outcome, message=message))

    assert said.startswith(says)


@pytest.mark.parametrize(
    ("share", "says"), [(0, "0 %"), (0.5, "50.0 %"), (0.0123, "1.23 %"), (0.00012, "0.012 %")]
)
def test_shares_have_as_many_digits_as_they_need(share, says):
    assert percent(share).replace("\N{NO-BREAK SPACE}", " ") == says


@pytest.mark.parametrize(
    ("ratio", "absolute", "is_lower", "says"),
    [
        (1.5, 0.001, False, "1.5 \N{MULTIPLICATION SIGN} stable + 0.10 %"),
        (1.0, 0.0, False, "stable"),
        (0.0, 0.01, False, "1.00 %"),
        (2.0, 0.01, True, "stable / 2 \N{MINUS SIGN} 1.00 %"),
    ],
)
def test_bounds_are_said_in_words(ratio, absolute, is_lower, says):
    given = Guardrail(name="g", kind=Kind.PROPORTION, metric="m", lower_is_worse=is_lower)

    assert bound(Bound(ratio, absolute), given).replace("\N{NO-BREAK SPACE}", " ") == says


def test_markup_is_told_from_text_by_its_type():
    assert (
        tag("p", "<b>", Markup("<b>x</b>"), class_='"') == '<p class="&quot;">&lt;b&gt;<b>x</b></p>'
    )
