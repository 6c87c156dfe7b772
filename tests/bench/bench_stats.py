"""
How long one look takes: 1,000 rollouts, 5 guardrails, 10 slices, all grid points, on one core.

    python tests/bench/bench_stats.py
"""

import sys
import time

import numpy as np

from modelrollout.stats.counts import (
    HARM_POINTS,
    SAFETY_POINTS,
    Bound,
    log_harm_of,
    log_mixture_of,
    log_safety_of,
)

ROLLOUTS, SLICES = 1_000, 10
BOUNDS = (Bound(1.0), Bound(1.25), Bound(1.5), Bound(1.0, 0.005), Bound(1.25, 0.01))
MOST_SECONDS = 0.5


def one_look(counts, harm, safety):
    """Adds a window to every state and reads all of them."""
    for guardrail, bound in enumerate(BOUNDS):
        harm[:, guardrail] += log_harm_of(counts[:, guardrail], bound)
        safety[:, guardrail] += log_safety_of(counts[:, guardrail], bound)
    return log_mixture_of(harm), log_mixture_of(safety)


def main():
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
        one_look(counts, harm, safety)
        seconds.append(time.process_time() - start)
    median = float(np.median(seconds))
    points = n_b.size * (HARM_POINTS + SAFETY_POINTS)
    sys.stdout.write(f"one look, {points:,} points: {median:.3f} s (at most {MOST_SECONDS})\n")
    return 0 if median <= MOST_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
