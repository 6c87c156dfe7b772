"""Traces: of a walk, and one that has every kind of guardrail."""

from __future__ import annotations

from modelrollout.api.v1alpha1 import ModelIdentity, Verdict
from modelrollout.core.evidence import Kind
from modelrollout.core.trace import (
    MAX_POINTS,
    Decision,
    Guardrail,
    Level,
    Point,
    Slice,
    Trace,
    Version,
)
from modelrollout.core.tracing import described, followed, is_decision
from modelrollout.stats.bounds import Bound
from walk import Walk


def traces_of(walk: Walk) -> list[Trace]:
    """As a recorder that forgets nothing would have them."""
    found: list[Trace] = []
    for rollout, seen, plan in walk.passes:
        if rollout.status.candidate is None and plan.status.candidate is None:
            continue
        known = found.pop() if found and found[-1].ended is None else None
        found += followed(known, rollout, seen, plan, MAX_POINTS)
        if found[-1].ended is None and is_decision(rollout, plan):
            found[-1] = described(found[-1], rollout, seen, plan)
    return found


def a_level(name: str, step: int, **more) -> Level:
    n = 1000.0 * (step + 1)
    given = {"stable": (n * 9, n * 0.09), "candidate": (n, n * 0.03), "harm": 0.4, "safety": 0.1}
    return Level(name=name, verdict=Verdict.INCONCLUSIVE, **(given | more))


def everything(text: str = "plain") -> Trace:
    """Each kind of guardrail, with a text of the test's wherever users have a say."""
    version = Version(
        deployment=text,
        revision=text,
        model=ModelIdentity(version=text, uri=text, digest=text),
        images=(text, text),
    )
    common = {"metric": text, "tolerance": Bound(1.5, 0.001), "margin": Bound(2.0, 0.01)}
    guardrails = (
        Guardrail(name="errors", kind=Kind.PROPORTION, slice_label=text, **common),
        Guardrail(
            name="latency",
            kind=Kind.DISTRIBUTION,
            thresholds=(0.1, 0.25, 1.0),
            dispersion=(1.0, 2.5, 1.0),
            **common,
        ),
        Guardrail(
            name="p99", kind=Kind.DISTRIBUTION, thresholds=(0.1, 0.2, 0.4), quantile=0.99, **common
        ),
        Guardrail(name="restarts", kind=Kind.RATE, **common),
        Guardrail(name="flips", kind=Kind.PAIRED, **common),
        Guardrail(name="score", kind=Kind.MEAN, lower_is_worse=True, **common),
        Guardrail(name="memory", kind=None, metric=text, limit="max 5 for 60 s"),
    )
    points = tuple(
        Point(
            time=1_800_000_000.0 + 60 * index,
            step=index // 5,
            weight=(5, 25)[index // 5],
            accepted=(5, 25)[index // 5],
            mirror=10 if index < 5 else 0,
            coverage=0.98,
            requests=100,
            guardrails=(
                a_level("errors", index % 5),
                *(
                    a_level(
                        each,
                        index % 5,
                        stable=(900.0, 90.0, 9.0, 1.0),
                        candidate=(90.0, 9.0, 2.0, 0.0),
                    )
                    for each in ("latency", "p99")
                ),
                *(a_level(each, index % 5) for each in ("restarts", "flips", "score")),
                Level(name="memory", verdict=Verdict.PASS, value=3.0 + index % 3),
            ),
        )
        for index in range(10)
    )
    decisions = (
        Decision(time=points[0].time, what=text, message=text, by=text, is_warning=False, weight=5),
        Decision(
            time=points[9].time, what="RolledBack", message=text, by=None, is_warning=True, weight=0
        ),
    )
    slices = tuple(
        Slice(guardrail="errors", name=name, harm=harm, stable=(900.0, 9.0), candidate=(100.0, k))
        for name, harm, k in ((text, 1.2, 9.0), ("none", -0.1, 0.0))
    )
    return Trace(
        namespace=text,
        rollout=text,
        uid=text,
        candidate=version,
        stable=version,
        began=points[0].time,
        ended=points[9].time,
        outcome=text,
        message=text,
        steps=3,
        guardrails=guardrails,
        points=points,
        decisions=decisions,
        slices=slices,
    )
