"""
An A/B test shares out users, and the requests of one user are not independent.

Equal versions; a tenth of the users get nearly only errors, the others nearly none. What is asked
is how often the candidate of such a test is rolled back at a level of 5 %, by what is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import beta

from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import log_harm_of, log_mixture_of, usual_share
from modelrollout.stats.dispersion import dispersion

ALPHA = 0.05
RUNS = 150
WINDOWS, USERS = 200, 2_000
REQUESTS_EACH = 10


@dataclass(frozen=True)
class World:
    """When a user's requests come: all in one window (a visit), or over the whole test."""

    is_visit: bool

    def users(self, generator):
        """Requests and errors per window of 2,000 users, by version; and users, and those who had an error."""
        arrival = generator.integers(0, WINDOWS, USERS)
        version = generator.integers(0, 2, USERS)
        rate = np.where(generator.random(USERS) < 0.1, 0.8, 0.01)
        sent = generator.geometric(1 / REQUESTS_EACH, USERS)
        of = np.repeat(np.arange(USERS), sent)
        at = arrival[of] if self.is_visit else generator.integers(0, WINDOWS, len(of))
        failed = generator.random(len(of)) < rate[of]
        suffered = generator.random(USERS) < rate
        return (
            self.table(at, version[of], failed),
            self.table(arrival, version, suffered),
        )

    @staticmethod
    def table(at, version, has_event):
        """Rows of (stable n, stable k, candidate n, candidate k)."""
        columns = [
            np.bincount(at[chosen], minlength=WINDOWS)
            for side in (0, 1)
            for chosen in (version == side, (version == side) & has_event)
        ]
        return np.stack(columns, axis=1).astype(float)


def is_rolled_back(table, before, *, is_tempered):
    """At any look, by bets as the operator makes them: centred and tempered by stable's history."""
    history = [(row[0] + row[2], row[1] + row[3]) for row in before]
    phi = dispersion(history, of_proportion=True) if is_tempered else 1.0
    logs = log_harm_of(table, Bound(1.0), usual=usual_share(history)) / phi
    return bool((log_mixture_of(np.cumsum(logs, axis=0)) >= -np.log(ALPHA)).any())


def rolled_back(world, *, by_user, is_tempered=True):
    """The share of runs of equal versions, and its lower and upper 99 % limits."""
    generator = np.random.default_rng(20261121)
    lost = 0
    for _ in range(RUNS):
        before, now = world.users(generator)[by_user], world.users(generator)[by_user]
        lost += is_rolled_back(now, before, is_tempered=is_tempered)
    limits = beta.ppf(0.01, max(lost, 1e-9), RUNS + 1 - lost), beta.ppf(0.99, lost + 1, RUNS - lost)
    return lost / RUNS, *limits


VISITS, SPREAD = World(is_visit=True), World(is_visit=False)


@pytest.mark.parametrize("world", [VISITS, SPREAD], ids=["visits", "spread"])
def test_users_that_are_counted_hold_the_error_rate(world):
    assert rolled_back(world, by_user=True)[1] <= ALPHA


def test_requests_of_a_visit_come_in_bursts_that_stables_history_shows():
    assert rolled_back(VISITS, by_user=False, is_tempered=False)[1] > ALPHA
    assert rolled_back(VISITS, by_user=False)[1] <= ALPHA


def test_requests_of_users_who_come_again_and_again_do_not_hold_it():
    """No history of windows shows that the same users are behind them."""
    assert rolled_back(SPREAD, by_user=False)[1] > ALPHA
