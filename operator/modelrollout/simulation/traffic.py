"""
Requests of a simulated world, and every counter that they move.

Users come as a Poisson process, the weights share them out among the places of the route, and the
pods of the version there answer. Much is drawn at once, ahead of the operator, which cannot see
it; when something changes, what was drawn for later is forgotten and drawn anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from modelrollout.simulation.exports import (
    ANSWERED,
    BAD,
    ERRORS,
    REQUESTS,
    WRONG,
    Exports,
    Quantity,
    Shape,
    Site,
)
from modelrollout.simulation.scenario import Scenario, Times, Version

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

STABLE, CANDIDATE = range(2)
PLACES: Final = 3
"""More backends than a route ever has on its way from one list to the next."""
WARMUP_FACTOR: Final = 5.0
"""A new pod's first requests take so many times as long, and fail so many times as often."""


class Growing:
    """Rows of an array, appended in blocks and cut off again."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._all = np.empty((256, *shape))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Array:
        """All there are."""
        return self._all[: self._count]

    def append(self, rows: Array) -> None:
        """More of them."""
        last = self._count + len(rows)
        while last > len(self._all):
            self._all = np.concatenate([self._all, np.empty_like(self._all)])
        self._all[self._count : last] = rows
        self._count = last

    def cut(self, count: int) -> None:
        """Only the first so many."""
        self._count = min(count, self._count)


class Traffic:
    """
    The counters at each instant that was drawn, cumulative since the world began.

    They are kept by place (the gateway's, whoever is behind it), by pod, and by version.
    """

    def __init__(
        self,
        exports: Exports,
        scenario: Scenario,
        generator: np.random.Generator,
        *,
        began: float,
        created: float,
    ) -> None:
        self._exports = exports
        self._scenario = scenario
        self._versions = (scenario.stable, scenario.candidate)
        self._draw = generator
        self._created = created
        self.version_of = np.repeat((STABLE, CANDIDATE), [each.pods for each in self._versions])
        self._factors = np.array([self._factor(each) for each in self.version_of])
        # Stable's pods have served for long when the world begins; the candidate's are new.
        self._cold_from = np.where(self.version_of == STABLE, -np.inf, 0.0)
        rows = {Site.GATEWAY: PLACES, Site.PODS: len(self.version_of), Site.EXPORTER: 2}
        self._times = Growing(())
        self._times.append(np.full(1, began))
        self._counters = {site: Growing((count, exports.columns)) for site, count in rows.items()}
        for site, each in self._counters.items():
            each.append(np.zeros((1, rows[site], exports.columns)))
        self.shift([(STABLE, 1.0)])

    # --- what was counted -----------------------------------------------------------------

    @property
    def drawn(self) -> int:
        """How many instants were drawn; the next one gets this index."""
        return len(self._times)

    def counters(self, site: Site) -> Array:
        """By instant, row (place, pod or version) and column."""
        return self._counters[site].rows

    def index_at(self, times: Times) -> NDArray[np.int64]:
        """The last instants that are not after the times; 0 is the beginning."""
        return np.maximum(np.searchsorted(self._times.rows, times, side="right") - 1, 0)

    def count_of(self, version: int) -> tuple[int, int]:
        """Requests that a version got up to the last instant, and how many it answered badly."""
        row = self.counters(Site.EXPORTER)[-1, version]
        return int(row[REQUESTS]), int(row[BAD])

    # --- what changes ---------------------------------------------------------------------

    def cut(self, now: float) -> None:
        """Nothing is known beyond `now`, and everything up to it is."""
        count = int(self.index_at(np.array(now))) + 1
        for each in (self._times, *self._counters.values()):
            each.cut(count)
        if self._times.rows[-1] < now:
            self.draw(np.array([now]))

    def shift(self, weights: Sequence[tuple[int, float]]) -> None:
        """Other weights from the last instant on: version and weight by place."""
        total = sum(weight for _, weight in weights) or 1.0
        cells = [
            (place, pod, weight / total / self._versions[version].pods)
            for place, (version, weight) in enumerate(weights)
            for pod in np.flatnonzero(self.version_of == version)
        ]
        places, pods, shares = zip(*cells, strict=True)
        self._pods, self._shares = np.array(pods), np.array(shares)
        whose = self.version_of[self._pods]
        self._by_place = np.eye(PLACES)[:, list(places)]
        self._by_pod = np.eye(len(self.version_of))[:, self._pods]
        self._by_version = np.eye(2)[:, self.version_of]
        self._prepare([self._versions[each] for each in whose], whose)

    def replace_pod(self, pod: int) -> None:
        """From the last instant on another pod is in this one's place."""
        self._factors[pod] = self._factor(int(self.version_of[pod]))
        self._cold_from[pod] = self.counters(Site.PODS)[-1, pod, REQUESTS]
        self._errors = self._error_rates * self._factors[self._pods]

    def _factor(self, version: int) -> float:
        """A pod's factor on the error rate; 1 on average."""
        sd = self._versions[version].pod_sd
        return float(np.exp(sd * self._draw.standard_normal() - sd**2 / 2)) if sd else 1.0

    def _prepare(self, versions: Sequence[Version], whose: NDArray[np.int64]) -> None:
        """Chances of each cell, a pod at a place."""
        self._error_rates = np.array([each.error_rate or 0.0 for each in versions])
        self._errors = self._error_rates * self._factors[self._pods]
        self._wrong = np.array(
            [0.0 if each.accuracy is None else 1 - each.accuracy for each in versions]
        )
        self._shifted = np.array([each.tail_shift.share for each in versions])
        self._warmups = np.array([each.warmup_requests for each in versions])
        self._whose = whose
        shifts = [each.tail_shift.seconds for each in versions]
        self._shares_of = [
            (
                _shares_of(each, whose),
                _shares_of(each, whose, shifts=shifts),
                _shares_of(each, whose, factor=WARMUP_FACTOR),
            )
            for each in self._exports.quantities
        ]

    # --- drawing --------------------------------------------------------------------------

    def draw(self, times: Times) -> None:
        """What users do until each of the times, which ascend from the last instant on."""
        edges = np.concatenate([self._times.rows[-1:], times]) - self._created
        expected = np.maximum(np.diff(self._scenario.expected(edges)), 0.0)
        drift = self._scenario.factors((edges[1:] + edges[:-1]) / 2)[:, None]
        cells = self._cells(expected[:, None] * self._shares, drift)
        pods = self._by_pod @ cells
        for each in self._exports.rates:
            rates = np.array(each.rates)[self.version_of] * drift * np.diff(edges)[:, None]
            pods[..., each.column] = self._draw.poisson(rates)
        self._times.append(times)
        for site, more in (
            (Site.GATEWAY, self._by_place @ cells),
            (Site.PODS, pods),
            (Site.EXPORTER, self._by_version @ pods),
        ):
            self._counters[site].append(self.counters(site)[-1] + np.cumsum(more, axis=0))

    def _cells(self, expected: Array, drift: Array) -> Array:
        """By interval, cell and column."""
        draw = self._draw
        sent = draw.poisson(expected)
        found = np.zeros((*sent.shape, self._exports.columns))
        cold = self._cold(sent)
        errors = self._happens(sent - cold, self._errors * drift)
        if cold.any():
            errors += self._happens(cold, WARMUP_FACTOR * self._errors * drift)
        wrong = self._happens(sent - errors, self._wrong * drift)
        shifted = draw.binomial(sent - cold, self._shifted) if self._shifted.any() else 0 * sent
        bad = errors + wrong + shifted
        for event in self._exports.events:
            count = self._happens(sent, np.array(event.rates)[self._whose] * drift)
            found[..., event.column] = count
            bad = bad + count if event.is_bad else bad
        for quantity, chances in zip(self._exports.quantities, self._shares_of, strict=True):
            parts = (sent - cold - shifted, shifted, cold) if quantity.is_latency else (sent,)
            last = quantity.column + len(quantity.edges)
            found[..., quantity.column : last] = self._at_or_below(parts, chances)
        for value in self._exports.values:
            mean, sd = (np.array(each)[self._whose] for each in (value.means, value.sds))
            scale = sd**2 / np.maximum(mean, 1e-300)
            total = draw.standard_gamma(sent * (mean / sd) ** 2) * scale
            found[..., value.column] = np.minimum(total, sent * min(value.largest, 1e300))
        found[..., REQUESTS] = sent
        found[..., ANSWERED] = sent - errors
        found[..., ERRORS] = errors
        found[..., WRONG] = wrong
        found[..., BAD] = bad
        return found

    def _cold(self, sent: Counts) -> Counts:
        """How many of the requests are among a pod's first."""
        if not self._warmups.any():
            return np.zeros_like(sent)
        by_pod = sent @ self._by_pod.T
        before = self.counters(Site.PODS)[-1, :, REQUESTS] - self._cold_from
        served = before + np.cumsum(by_pod, axis=0) - by_pod
        left = np.maximum(self._warmups - served[:, self._pods], 0)
        return np.minimum(sent, left).astype(np.int64)

    def _happens(self, count: Counts, chance: Array) -> Counts:
        """How often, in causes of one event or, with bursts, of several."""
        mean = self._scenario.burst_mean
        chance = np.minimum(chance, 1.0)
        if not chance.any():
            return np.zeros_like(count)
        if mean == 1:
            return self._draw.binomial(count, chance)
        causes = self._draw.poisson(count * chance / mean)
        more = self._draw.negative_binomial(np.maximum(causes, 1), 1 / mean)
        return np.minimum(causes + np.where(causes > 0, more, 0), count)

    def _at_or_below(self, parts: Sequence[Counts], chances: Sequence[Array]) -> Counts:
        """The parts in the buckets of a histogram, cumulative, without the infinite one."""
        buckets = self._draw.multinomial(parts[0], chances[0])
        for part, chance in zip(parts[1:], chances[1:], strict=False):
            if part.any():
                buckets += self._draw.multinomial(part, chance)
        return np.cumsum(buckets[..., :-1], axis=-1)


def _shares_of(
    quantity: Quantity,
    whose: NDArray[np.int64],
    *,
    factor: float = 1.0,
    shifts: Sequence[float] | None = None,
) -> Array:
    """The chance of each bucket, by cell."""
    by = np.zeros(len(whose)) if shifts is None else np.array(shifts)
    return np.array(
        [
            bucket_shares(quantity.edges, quantity.shapes[version], factor, shift)
            for version, shift in zip(whose, by, strict=True)
        ]
    )


def bucket_shares(
    edges: Sequence[float], shape: Shape, factor: float = 1.0, shift: float = 0.0
) -> Array:
    """The chance of each bucket, the infinite one included."""
    above = np.maximum(np.array(edges) - shift, 1e-12)
    below = ndtr(np.log(above / (shape.median * factor)) / shape.sigma)
    return np.diff(below, prepend=0.0, append=1.0)
