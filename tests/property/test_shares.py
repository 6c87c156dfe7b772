"""Between any two lists of backends no request finds a place that is new to the proxy, or gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelrollout.core.shares import TRICKLE, WHOLE, following, needs_rest

SERVICES = ["v1", "v2", "v3"]
LISTS = st.lists(st.tuples(st.sampled_from(SERVICES), st.integers(1, 100)), min_size=1, max_size=3)


def rest(service):
    return [(service, 1)]


def away(stable, candidate, weight):
    if weight == 100:
        return [(stable, TRICKLE), (candidate, WHOLE - TRICKLE)]
    return [(stable, 100 - weight), (candidate, weight)]


@st.composite
def journeys(draw):
    """What an operator wants one after the other; each time after some of the writes towards it."""
    stable, live, steps = "v1", rest("v1"), []
    for _ in range(draw(st.integers(1, 6))):
        candidate = draw(st.sampled_from([each for each in SERVICES if each != stable]))
        wish = draw(st.sampled_from(["away", "rest", "promote"]))
        if wish == "promote":
            stable = candidate
        weight = draw(st.integers(1, 100))
        target = away(stable, candidate, weight) if wish == "away" else rest(stable)
        if wish == "away" and live != rest(stable):
            # A trial begins when the route is at rest; until then it is brought there.
            target = rest(stable)
        for _ in range(draw(st.integers(1, 7))):
            if live == target:
                break
            steps.append((live, following(live, target)))
            live = steps[-1][1]
    return steps


def carrying(shares):
    """Places that carry more than a trickle: with which Service, which share."""
    total = sum(weight for _, weight in shares)
    return {
        place: (service, weight / total)
        for place, (service, weight) in enumerate(shares)
        if weight / total > 0.001
    }


@given(live=LISTS, stable=st.sampled_from(SERVICES), weight=st.integers(0, 100))
def test_every_way_ends_at_the_target_whatever_somebody_else_wrote(live, stable, weight):
    candidate = next(each for each in SERVICES if each != stable)
    target = away(stable, candidate, weight) if weight else rest(stable)
    for _ in range(7):
        live = following(live, target)
    assert live == target


@given(journeys())
def test_no_place_with_traffic_comes_goes_or_changes_its_service(steps):
    for before, after in steps:
        for place, (service, _) in carrying(before).items():
            assert place < len(after), (before, after)
            assert after[place][0] == service, (before, after)
        for place, (service, _) in carrying(after).items():
            assert place < len(before), (before, after)
            assert before[place][0] == service, (before, after)


@given(journeys())
def test_every_write_gives_the_gateway_weights_that_it_takes(steps):
    for _, after in steps:
        assert all(0 < weight <= WHOLE for _, weight in after)


@given(journeys())
def test_what_is_new_to_the_proxy_waits_for_the_write_before(steps):
    for before, after in steps:
        is_new = set(carrying(after)) - set(carrying(before))
        moves = [service for service, _ in before] != [service for service, _ in after]
        assert needs_rest(before, after) == bool(is_new or moves)


@given(weight=st.integers(1, 99))
def test_a_rollback_begins_at_once_and_takes_all_traffic_in_its_first_write(weight):
    live = away("v1", "v2", weight)
    first = following(live, rest("v1"))
    assert not needs_rest(live, first)
    assert first == [("v1", WHOLE - TRICKLE), ("v2", TRICKLE)]
