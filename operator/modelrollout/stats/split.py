"""
Sample-ratio mismatch: whether requests reach the versions in the shares they were given.

Traffic that is not split as asked is a fault of its own, and it makes every comparison of the
versions doubtful: an alarm says that the rest of the evidence cannot be trusted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from modelrollout.stats.combine import log_mixture

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONCENTRATIONS: Final = (100.0, 1_000.0, 10_000.0)
SPLIT_POINTS: Final[int] = len(_CONCENTRATIONS)
"""Grid points of the evidence of a mismatch."""

# An edge nearer to 1 than this has no number above it that is not 1.
_ROUNDING: Final = 1e-9

# Alternatives beyond a tolerated share: fractions of the way from its edge to 0 or 1.
_STEPS_BEYOND: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)


def log_mismatch(
    requests: Sequence[float],
    shares: Sequence[float],
    *,
    concentrations: Sequence[float] = _CONCENTRATIONS,
) -> tuple[float, ...]:
    """
    Evidence that requests are not split as `shares` say: log e per concentration.

    `requests` are the counts per version of one step, all of it, so far; `shares` the weights in
    force, summing to 1. Add the results of the steps (a step with other weights is a fresh
    test, and a product of e-processes is one) and read with `combine.log_mixture`. Windows in
    which the weights changed must be left out. A version of share 0 is left out too: its
    requests are a fault that needs no statistics.

    Null hypothesis: each request goes to version i with probability shares[i], independently.
    With sticky sessions requests of a user go together: use `log_mismatch_beyond`, or count
    users. Raises ValueError for unequal lengths, counts or shares that are negative or not
    finite, shares that do not sum to 1, and fewer than two shares above 0.

    Source: Dirichlet-multinomial mixture of Lindon and Malek, "Anytime-valid inference for
    multinomial count data" (NeurIPS 2022, arXiv 2011.03567), mean at `shares`.
    """
    n, p = _checked(requests, shares)
    null = sum(x * math.log(share) for x, share in zip(n, p, strict=True))
    return tuple(_log_marginal(n, [c * share for share in p]) - null for c in concentrations)


def log_mismatch_beyond(requests: Sequence[float], share: float, tolerance: float) -> float:
    """
    Log evidence that the candidate's share lies outside share -+ tolerance.

    `requests` are (stable, candidate) of one step, so far. Null hypothesis: each request goes to
    the candidate with a probability inside, which may change from request to request, as it
    does when a few sticky users come and go. Per side the likelihood ratio of a share beyond
    against the edge, which expects at most 1 inside; mean over alternatives and sides. Add
    over steps. Raises ValueError for counts that are negative or not finite, and for a share
    or tolerance outside [0, 1]. Source: docs/statistics.md section 4 (a bet on each request, as
    those of Waudby-Smith and Ramdas, arXiv 2010.09686).
    """
    if not (0 <= share <= 1 and 0 <= tolerance <= 1):
        raise ValueError(f"share and tolerance must lie in [0, 1], not {share} and {tolerance}")
    if any(not (math.isfinite(x) and x >= 0) for x in requests):
        raise ValueError(f"requests must be finite and >= 0, not {tuple(requests)}")
    stable, candidate = requests
    above = _log_beyond(candidate, stable, share + tolerance)
    below = _log_beyond(stable, candidate, 1 - share + tolerance)
    return log_mixture([*above, *below])


def _log_beyond(inside: float, outside: float, edge: float) -> list[float]:
    """Log likelihood ratios of shares above the edge; zeros where nothing lies above it."""
    if not 0 < edge < 1 - _ROUNDING:
        return [0.0] * len(_STEPS_BEYOND)
    further = [edge + step * (1 - edge) for step in _STEPS_BEYOND]
    return [inside * math.log(x / edge) + outside * math.log((1 - x) / (1 - edge)) for x in further]


def _log_marginal(n: Sequence[float], alpha: Sequence[float]) -> float:
    """Log probability of a sequence with counts n under a Dirichlet(alpha) mixture."""
    total = math.lgamma(sum(alpha)) - math.lgamma(sum(alpha) + sum(n))
    return total + sum(math.lgamma(a + x) - math.lgamma(a) for a, x in zip(alpha, n, strict=True))


def _checked(requests: Sequence[float], shares: Sequence[float]) -> tuple[list[float], list[float]]:
    if len(requests) != len(shares):
        raise ValueError(f"{len(requests)} counts do not go with {len(shares)} shares")
    if not all(math.isfinite(x) and x >= 0 for x in requests):
        raise ValueError(f"requests must be finite and >= 0, not {tuple(requests)}")
    are_shares = all(math.isfinite(p) and p >= 0 for p in shares)
    if not (are_shares and math.isclose(sum(shares), 1, abs_tol=1e-9)):
        raise ValueError(f"shares must be >= 0 and sum to 1, not {tuple(shares)}")
    used = [(float(x), float(p)) for x, p in zip(requests, shares, strict=True) if p > 0]
    if len(used) < 2:  # noqa: PLR2004 - a split is between two
        raise ValueError(f"a split needs two shares above 0, not {tuple(shares)}")
    return [x for x, _ in used], [p for _, p in used]
