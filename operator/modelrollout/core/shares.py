"""
From one list of weighted backends to another, without a request that finds no backend.

A proxy identifies a backend by its place in the list. When a place is taken away, or given to
another Service, requests that were already sent there fail. Every write therefore obeys: a
place that carries traffic before or after the write has the same Service before and after it.
What has to go is first left with a trickle (one request in a million), what is new begins with
one. Weight 0 is no way to begin or end: Envoy Gateway drops the backend at once.
"""

from __future__ import annotations

Shares = list[tuple[str, int]]
"""(Service, weight) by place."""

WHOLE = 1_000_000
"""The sum of weights while backends come and go; the largest weight that Gateway API allows."""
TRICKLE = 1


def following(live: Shares, target: Shares) -> Shares:
    """The shares after the next write on the way from `live` to `target`."""
    if _services(live) == _services(target):
        return target
    moved = _moved(live, target)
    if moved is not None and _traffic(moved) != _traffic(live):
        return moved
    if moved is not None and _services(live)[: len(target)] == _services(target):
        return target
    warmed = _warmed(live, target)
    # Busy places that would have to swap their Services: no rollout needs it, only a list that
    # somebody else wrote. It goes in one write.
    return target if warmed == live else warmed


def needs_rest(before: Shares, after: Shares) -> bool:
    """
    Whether the proxy must have taken up the write before this one first.

    It must when places come or go, or when one begins to carry traffic that may be new to the
    proxy. Traffic that goes back to where some of it is already can go at once.
    """
    if _services(before) != _services(after):
        return True
    pairs = zip(_traffic(before), _traffic(after), strict=True)
    return any(new > 0 and old == 0 for old, new in pairs)


def is_spread_as(one: Shares, other: Shares) -> bool:
    """Whether each Service of the other list gets the same part of the traffic in both."""
    parts = dict(zip(_services(one), _traffic(one), strict=True))
    return all(
        parts.get(service) == part
        for service, part in zip(_services(other), _traffic(other), strict=True)
    )


def _services(shares: Shares) -> list[str]:
    return [service for service, _ in shares]


def _traffic(shares: Shares) -> list[int]:
    """Thousandths of the traffic by place: a trickle is none."""
    total = sum(weight for _, weight in shares) or 1
    return [round(1000 * weight / total) for _, weight in shares]


def _moved(live: Shares, target: Shares) -> Shares | None:
    """The target's traffic on the places that there are; None while a Service has no place."""
    present = _services(live)
    weights = [TRICKLE] * len(live)
    total = sum(weight for _, weight in target)
    for place, (service, weight) in enumerate(target):
        if service not in present:
            return None
        has_own_place = place < len(live) and present[place] == service
        where = place if has_own_place else present.index(service)
        weights[where] = max(TRICKLE, WHOLE * weight // total)
    return _whole(present, weights)


def _warmed(live: Shares, target: Shares) -> Shares:
    """The live traffic, with the target's Services in every place that carries none."""
    traffic = _traffic(live)
    services, weights = [], []
    for place, (service, weight) in enumerate(live):
        is_busy = traffic[place] > 0
        takes_over = not is_busy and place < len(target)
        services.append(target[place][0] if takes_over else service)
        weights.append(weight * WHOLE // sum(w for _, w in live) if is_busy else TRICKLE)
    for service, _ in target:
        if service not in services:
            services.append(service)
            weights.append(TRICKLE)
    return _whole(services, weights)


def _whole(services: list[str], weights: list[int]) -> Shares:
    """Make the weights add up, by the busiest place."""
    busiest = weights.index(max(weights))
    rest = sum(weights) - weights[busiest]
    weights[busiest] = WHOLE - rest
    return list(zip(services, weights, strict=True))
