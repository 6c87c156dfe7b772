"""Numbers as people say them."""

from __future__ import annotations

import re

from modelrollout.api import v1alpha1 as api
from modelrollout.api.presets import expanded
from modelrollout.core.times import duration

LEAST_SHARE = 0.001
MILLISECONDS = re.compile(r"_(ms|milliseconds)$|^envoy_cluster_upstream_rq_time$")
SECONDS = re.compile(r"_seconds$")
FIGURES = re.compile(
    r"^(?P<before>.*?)candidate (?P<candidate>.*?), stable (?P<stable>.*?), tolerance (?P<tolerance>.*?), margin (?P<margin>.*?)(?P<remarks>, (which|tempered|an average).*)?$",
    re.DOTALL,
)
COUNTED = re.compile(
    r"(?P<share>[\d.]+ %) of (?P<requests>\d[\d,]*\d|\d)(?: above (?P<threshold>[\d.e+-]+))?"
)


def percent(share: float) -> str:
    """As the operator tells it, and with two digits where that would be next to nothing."""
    return f"{100 * share:.2f} %" if share == 0 or share >= LEAST_SHARE else f"{100 * share:.2g} %"


def rate(share: float) -> str:
    """A round share: 1 %."""
    return f"{100 * share:.3g} %"


def figure(estimate: api.Estimate | None, guardrail: api.Guardrail | None) -> str:
    """A version's figure in its unit."""
    if estimate is None or estimate.value is None:
        return "none yet"
    value = float(estimate.value)
    if guardrail is not None and guardrail.rate is not None:
        return f"{value:.3g}/s"
    if guardrail is not None and guardrail.mean is not None:
        return f"{value:.4g}"
    return percent(value)


def exposure(estimate: api.Estimate | None, guardrail: api.Guardrail | None) -> str:
    """On how much a figure rests."""
    if estimate is None:
        return ""
    is_rate = guardrail is not None and guardrail.rate is not None
    return f"of {estimate.requests:,}" if not is_rate else f"in {duration(estimate.requests)}"


def interval(found: api.GuardrailStatus, guardrail: api.Guardrail | None) -> str:
    """Candidate against stable: 0.5 to 3.1 x, or -0.2 to +1.4 points."""
    told = found.interval
    if told is None or (told.lower is None and told.upper is None):
        return ""
    is_ratio = told.kind == "Ratio"
    lower, upper = (_bound(each, guardrail, is_ratio=is_ratio) for each in (told.lower, told.upper))
    unit = " x stable" if is_ratio else " points" if _is_share(guardrail) else ""
    unit = unit if is_ratio else f"{unit} from stable"
    if lower is None:
        return f"at most {upper}{unit}"
    if upper is None:
        return f"at least {lower}{unit}"
    return f"{lower} to {upper}{unit}"


def _bound(text: str | None, guardrail: api.Guardrail | None, *, is_ratio: bool) -> str | None:
    if text is None:
        return None
    value = float(text)
    if is_ratio:
        return f"{value:.2g}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004  # three digits
    return f"{100 * value:+.2g}" if _is_share(guardrail) else f"{value:+.2g}"


def _is_share(guardrail: api.Guardrail | None) -> bool:
    return guardrail is None or not (guardrail.rate or guardrail.mean)


def threshold(text: str, guardrail: api.Guardrail | None) -> str:
    """A bucket's bound in the unit of its histogram, as far as its name tells."""
    whole = None if guardrail is None else expanded(guardrail).distribution
    metric = whole.histogram.metric if whole else ""
    if MILLISECONDS.search(metric):
        return f"{text} ms"
    if SECONDS.search(metric):
        value = float(text)
        return f"{1000 * value:g} ms" if value < 1 else f"{value:g} s"
    return text


def beyond(found: api.GuardrailStatus, guardrail: api.Guardrail | None) -> str:
    """The threshold of a tail that its figures speak of, out of the operator's sentence."""
    told = COUNTED.search(found.message)
    if told is None or told["threshold"] is None:
        return ""
    return f"above {threshold(told['threshold'], guardrail)}"


def in_units(said: str, guardrail: api.Guardrail | None) -> str:
    """A version's figures as the operator tells them, with words for what was counted."""

    def spelled(found: re.Match[str]) -> str:
        beyond = found["threshold"]
        above = f" above {threshold(beyond, guardrail)}" if beyond else ""
        return f"{found['share']} of {found['requests']} requests{above}"

    return COUNTED.sub(spelled, said)
