"""
How long evidence takes, on one core.

One look at 1,000 rollouts with 5 guardrails, 10 slices and all grid points; and single calls, as
the operator makes them: one window of one guardrail, with one and with eight thresholds.

    python tests/bench/bench_stats.py
"""

import sys
import time
from timeit import repeat

import numpy as np

from modelrollout.stats import histograms
from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import log_mixture
from modelrollout.stats.counts import (
    HARM_POINTS,
    SAFETY_POINTS,
    Sample,
    log_evidence_of,
    log_harm,
    log_harm_of,
    log_mixture_of,
    log_safety_of,
)

ROLLOUTS, SLICES = 1_000, 10
BOUNDS = (Bound(1.0), Bound(1.25), Bound(1.5), Bound(1.0, 0.005), Bound(1.25, 0.01))
MOST_SECONDS = 0.5
MOST_MICROSECONDS = 25
CALLS = 2_000


def one_look(counts, harm, safety, usual):
    """Adds a window to every state and reads all of them."""
    for guardrail, bound in enumerate(BOUNDS):
        harm[:, guardrail] += log_harm_of(counts[:, guardrail], bound, usual=usual)
        safety[:, guardrail] += log_safety_of(counts[:, guardrail], bound, usual=usual)
    return log_mixture_of(harm), log_mixture_of(safety)


def seconds_of_a_look(usual):
    generator = np.random.default_rng(20260412)
    shape = (ROLLOUTS, len(BOUNDS), SLICES)
    n_b, n_c = generator.poisson(475, shape), generator.poisson(25, shape)
    counts = np.stack(
        [n_b, generator.binomial(n_b, 0.01), n_c, generator.binomial(n_c, 0.01)], axis=-1
    ).astype(np.float64)
    harm, safety = np.zeros((*shape, HARM_POINTS)), np.zeros((*shape, SAFETY_POINTS))
    seconds = []
    for _ in range(9):
        start = time.process_time()
        one_look(counts, harm, safety, usual)
        seconds.append(time.process_time() - start)
    points = n_b.size * (HARM_POINTS + SAFETY_POINTS)
    return points, float(np.median(seconds))


def single_calls():
    """Names and functions; tables are lists, as they come out of a checkpoint's windows."""
    row = (475.0, 5.0, 25.0, 1.0)
    usual = (0.01,) * 8
    one, eight, samples = [[row]], [[row] * 8], [Sample(*row)]
    ratio, absolute = Bound(1.25), Bound(1.25, 0.01)
    states = [[0.1 * j for j in range(HARM_POINTS)]] * 8
    return {
        "log_harm_of, 1 x 1, ratio": lambda: log_harm_of(one, ratio),
        "log_harm_of, 1 x 8, ratio": lambda: log_harm_of(eight, ratio),
        "log_safety_of, 1 x 8, ratio": lambda: log_safety_of(eight, ratio),
        "log_harm_of, 1 x 1, absolute": lambda: log_harm_of(one, absolute),
        "log_harm_of, 1 x 8, absolute": lambda: log_harm_of(eight, absolute),
        "log_safety_of, 1 x 8, absolute": lambda: log_safety_of(eight, absolute),
        "log_evidence_of, 1 x 1, absolute": lambda: log_evidence_of(
            one, absolute, absolute, usual=usual[:1]
        ),
        "log_evidence_of, 1 x 8, absolute": lambda: log_evidence_of(
            eight, absolute, absolute, usual=usual
        ),
        "log_harm, one sample, absolute": lambda: log_harm(samples, absolute),
        "log_mixture, 12 points": lambda: log_mixture(states[0]),
        "log_mixture_of, 8 x 12": lambda: log_mixture_of(states),
        "histograms.log_harm, 8 x 12": lambda: histograms.log_harm(states),
    }


def main():
    slowest = 0.0
    for usual, said in ((0.0, ""), (0.01, ", centred")):
        points, median = seconds_of_a_look(usual)
        print(f"one look, {points:,} points{said}: {median:.3f} s (at most {MOST_SECONDS})")
        slowest = max(slowest, median)
    for name, call in single_calls().items():
        microseconds = min(repeat(call, number=CALLS, repeat=5)) / CALLS * 1e6
        print(f"{name}: {microseconds:.1f} us (at most {MOST_MICROSECONDS})")
    return 0 if slowest <= MOST_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
