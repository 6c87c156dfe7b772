"""How far two answers are apart, as numbers. No word of requests or formats."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence


def jensen_shannon(one: Sequence[float], other: Sequence[float]) -> float:
    """
    The Jensen-Shannon divergence of two distributions over the same classes, in bits: 0 to 1.

    Neither has to sum to exactly 1. Source: Lin, IEEE Transactions on Information Theory 1991.
    """
    scale_one, scale_other = math.fsum(one), math.fsum(other)
    total = 0.0
    for a, b in zip(one, other, strict=True):
        p, q = a / scale_one, b / scale_other
        total += sum(x * math.log2(2 * x / (p + q)) for x in (p, q) if x)
    return min(max(total / 2, 0.0), 1.0)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors; of two zero vectors it is 1, of one it is 0."""
    largest, other_largest = (max(map(abs, each)) for each in (one, other))
    if not (largest and other_largest):
        return 1.0 if largest == other_largest else 0.0
    # Divided first: the square of a large number is infinite, that of a small one is 0.
    one, other = [x / largest for x in one], [y / other_largest for y in other]
    product = math.fsum(x * y for x, y in zip(one, other, strict=True))
    return min(max(product / math.hypot(*one) / math.hypot(*other), -1.0), 1.0)


def overlap(one: Sequence[Hashable], other: Sequence[Hashable], depth: int) -> float:
    """The share of the first `depth` items that both lists have, in any order."""
    top, other_top = set(one[:depth]), set(other[:depth])
    longer = max(len(top), len(other_top))
    return len(top & other_top) / longer if longer else 1.0


def rank_biased_overlap(
    one: Sequence[Hashable], other: Sequence[Hashable], depth: int, persistence: float
) -> float:
    """
    The extrapolated rank-biased overlap of two rankings without repetitions, 0 to 1.

    Source: Webber, Moffat and Zobel, ACM Transactions on Information Systems 2010, equation 32:
    beyond the end of the shorter list its agreement is taken to go on as it was.
    """
    short, long = sorted((one[:depth], other[:depth]), key=len)
    if not short:
        return 1.0 if not long else 0.0
    seen: tuple[set[Hashable], set[Hashable]] = (set(), set())
    common, weight, total, at_short = 0.0, 1.0, 0.0, 0.0
    for rank, item in enumerate(long, 1):
        weight *= persistence
        common += item in seen[0]
        seen[1].add(item)
        if rank <= len(short):
            common += short[rank - 1] in seen[1]
            seen[0].add(short[rank - 1])
            at_short = common
            total += common / rank * weight
        else:
            beyond = at_short * (rank - len(short)) / (len(short) * rank)
            total += (common / rank + beyond) * weight
    tail = (common - at_short) / len(long) + at_short / len(short)
    return min(max((1 - persistence) / persistence * total + tail * weight, 0.0), 1.0)
