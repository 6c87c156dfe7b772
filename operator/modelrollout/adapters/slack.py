"""
A decision as a message for people, in the form of Slack's incoming web hooks: what, why, what to do.

Only `text` is used, which Mattermost, Rocket.Chat and others with such web hooks read, too. What
users of the cluster wrote (names, an approval's message) can neither mention anybody nor add lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelrollout.api import fields
from modelrollout.core.audit import Json, Record

LONGEST_TEXT = 3900
"""Slack advises to stay below 4,000 characters."""
MAX_GUARDRAILS = 8
LONGEST_LINE = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What is told of a kind of decision."""

    title: str
    to_do: str
    verb: str = "why"
    """Of `kubectl modelrollout`: the command to begin with."""


NOTHING = "Nothing to do."
ADVICE: Mapping[str, Advice] = {
    "Started": Advice(title="Started", to_do=NOTHING, verb="get"),
    "Restarted": Advice(title="Started anew with another version", to_do=NOTHING, verb="get"),
    "StepStarted": Advice(title="Next step", to_do=NOTHING, verb="get"),
    "Compared": Advice(title="How the A/B test came out", to_do=NOTHING, verb="get"),
    "AssignmentNotChecked": Advice(
        title="Not checked: who gets which version",
        to_do="Name a counter of users in spec.traffic.sticky.users.",
        verb="get",
    ),
    "RolledBack": Advice(
        title="Rolled back",
        to_do="Users are on stable. Mend the model and deploy it; if the cause was elsewhere, retry.",
    ),
    "Promoted": Advice(title="Promoted", to_do=NOTHING, verb="get"),
    "Paused": Advice(
        title="Waits for a human",
        to_do="The weight stays, and a failure still rolls back. Look, then approve, resume, promote or abort.",
    ),
    "Resumed": Advice(title="Resumed", to_do=NOTHING, verb="get"),
    "Aborted": Advice(
        title="Aborted", to_do="Users are on stable. The version is not tried again until retry."
    ),
    "Retried": Advice(title="Tried again", to_do=NOTHING, verb="get"),
    "Approved": Advice(title="Approved", to_do=NOTHING, verb="get"),
    "StepSkipped": Advice(title="Step skipped", to_do="Its gate was not met.", verb="get"),
    "CommandIgnored": Advice(title="Command ignored", to_do="Nothing was changed.", verb="get"),
    "LeftToAutoscaler": Advice(
        title="Not scaled by the operator",
        to_do="Its autoscaler needs a minReplicas that bears the next step.",
        verb="get",
    ),
    "Drift": Advice(
        title="Somebody else edited the route",
        to_do="It is put back. Find out who it was; a GitOps tool has to leave the rules alone.",
    ),
    "CannotDecideInTime": Advice(
        title="Too little traffic to decide in time",
        to_do="Widen the margin, begin with a larger weight, or give the step more time.",
    ),
    "SplitMismatch": Advice(
        title="Requests are not shared out as the weights say",
        to_do="Nothing is promoted on this comparison. Find what else shares them out, or abort.",
    ),
    "PlaceboFailed": Advice(
        title="Stable differs from itself",
        to_do="The guardrail proves nothing now. Look for the pod of stable that is ill.",
    ),
    "RouteNotRestored": Advice(
        title="The route was left as it is",
        to_do="The ModelRollout is gone and users may be on its candidate: correct the route by hand, now.",
    ),
    "ChangedInPlace": Advice(
        title="Stable was changed in place",
        to_do="Nothing could be compared. Deploy the next version beside stable, under another name.",
    ),
}


def message(record: Record) -> Json:
    """The body of the request. Nobody's pages are fetched for a preview."""
    text = "\n".join(_lines(record))[:LONGEST_TEXT]
    return {"text": text, "unfurl_links": False, "unfurl_media": False}


def _lines(record: Record) -> Iterator[str]:
    advice = ADVICE.get(record.decision, Advice(title=record.decision, to_do=""))
    about = f"{record.namespace}/{record.rollout}"
    yield f"*{advice.title}: {about}*{_place(record.body)}"
    why = str(record.body.get("message", ""))
    yield _plain(why, LONGEST_LINE * 4)
    yield from _evidence(record.body, why)
    command = f"kubectl modelrollout {advice.verb} {record.rollout} --namespace {record.namespace}"
    yield f"{advice.to_do} `{command}`".strip()


def _place(body: Mapping[str, Any]) -> str:
    """Which step, and how the candidate's share changed."""
    step, weight = body.get("step"), body.get("weight") or {}
    parts = [f"step {step['number']} of {step['of']}"] if step else []
    if weight.get("before") != weight.get("after"):
        parts.append(f"{weight['before']} % → {weight['after']} % of the requests")
    return f" ({', '.join(parts)})" if parts else ""


def _evidence(body: Mapping[str, Any], why: str) -> Iterator[str]:
    """What each guardrail says, but for what was said already."""
    evidence = body.get("evidence") or {}
    for each in evidence.get("guardrails", [])[:MAX_GUARDRAILS]:
        said = str(each.get("message", ""))
        if said and said in why:
            continue
        verdict = f"{each['name']}: {each['verdict']}. {said}"
        yield f"• {_plain(verdict, LONGEST_LINE)}"


def _plain(text: str, length: int) -> str:
    """One line in which nothing is a mention, a link or an entity of Slack's."""
    line = " ".join(fields.shown(text).split())
    if len(line) > length:
        line = line[: length - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return line.replace("@", "@\N{ZERO WIDTH SPACE}")
