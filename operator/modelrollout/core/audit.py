"""
The audit trail: for each decision of a pass one record, with all that it rested on.

records(rollout, observation, plan) is pure and total. Of a spec a record has the rates, the
queries and a hash: what it may hold in confidence (requests of checks, users of a cohort) is in
none. It never is longer than MAX_BYTES.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelrollout.api import v1alpha1 as api
from modelrollout.core.evidence import Matcher, Measure, Selector
from modelrollout.core.observation import Observation, Rollout
from modelrollout.core.plan import Note, Plan
from modelrollout.core.times import as_time

MAX_BYTES = 32 * 1024
ENDS = frozenset({"RolledBack", "Promoted"})
"""Decisions about the version that was on trial until then; those of commands are, too."""
BEGINS = frozenset({"Started", "Restarted"})
"""Decisions that rest on no evidence: there is none of the version yet."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One decision."""

    id: str
    """Of this decision and no other."""
    time: str
    decision: str
    """The reason of its Event, in one word."""
    namespace: str
    rollout: str
    body: Mapping[str, Any]
    """All of it, as JSON."""
    recipients: tuple[str, ...] = ()
    """Web hooks that are told because the ModelRollout names them."""

    @property
    def line(self) -> str:
        """The body as one line."""
        return _text(self.body)


def records(rollout: Rollout, seen: Observation, plan: Plan) -> tuple[Record, ...]:
    """The decisions of a pass, in the order in which they were taken."""
    return tuple(_record(rollout, seen, plan, index) for index in range(len(plan.notes)))


def _record(rollout: Rollout, seen: Observation, plan: Plan, index: int) -> Record:
    note = plan.notes[index]
    time = as_time(seen.now)
    # A command is obeyed before anything else is looked at: its answer is the first note.
    is_answer = rollout.order is not None and index == 0
    head: Json = {
        "id": f"{rollout.uid}/{time}/{index}",
        "time": time,
        "decision": note.reason,
        "message": note.message[:1024],
        "namespace": rollout.namespace,
        "rollout": rollout.name,
        "uid": rollout.uid,
        "generation": rollout.generation,
        "specHash": _hash(rollout.spec),
        **(_command(rollout) if is_answer else {}),
        **_versions(rollout.status, plan.status, is_end=is_answer or note.reason in ENDS),
        "weight": {"before": rollout.status.weight.wanted, "after": plan.status.weight.wanted},
        "mirror": {"before": rollout.status.mirror or 0, "after": plan.status.mirror or 0},
        "previous": _previous(rollout.status),
    }
    return Record(
        id=head["id"],
        time=time,
        decision=note.reason,
        namespace=rollout.namespace,
        rollout=rollout.name,
        body=_bounded(head, _evidence(rollout, seen, plan, note)),
        recipients=rollout.recipients,
    )


def _hash(spec: api.ModelRolloutSpec | None) -> str | None:
    if spec is None:
        return None
    text = json.dumps(spec.to_dict(), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _command(rollout: Rollout) -> Json:
    assert rollout.command is not None
    return {"command": rollout.command.text, "user": rollout.command.by or None}


def _versions(
    before: api.ModelRolloutStatus, after: api.ModelRolloutStatus, *, is_end: bool
) -> Json:
    """Who it is about, and where: as it was for what ended, as it is for what began."""
    first, second = (before, after) if is_end else (after, before)
    told = first if first.step is not None else second
    return {
        "stable": _version(before.stable or after.stable),
        "candidate": _version(first.candidate or second.candidate),
        "step": None if told.step is None else {"number": told.step + 1, "of": told.steps},
    }


def _version(version: api.VersionStatus | None) -> Json | None:
    return None if version is None else version.to_dict()


def _previous(status: api.ModelRolloutStatus) -> Json | None:
    """The newest entry of the history before this pass: who does not have its record lost one."""
    if not status.history:
        return None
    return {"time": status.history[0].time, "what": status.history[0].what}


# --- what it rested on --------------------------------------------------------------------


def _evidence(rollout: Rollout, seen: Observation, plan: Plan, note: Note) -> Json | None:
    """As this pass judged it, or, where a command came first, as the last one did."""
    before, spec = rollout.status, rollout.spec
    statuses = plan.status.guardrails or before.guardrails
    if spec is None or before.candidate is None or note.reason in BEGINS or not statuses:
        return None
    return {
        "provider": spec.analysis.provider,
        "intervalSeconds": spec.analysis.interval_seconds,
        "falseRollbackRate": spec.analysis.false_rollback_rate,
        "falsePromoteRate": spec.analysis.false_promote_rate,
        "stepStartTime": before.step_start_time,
        "guardrails": [_guardrail(each, rollout, seen, plan) for each in statuses],
    }


def _guardrail(
    status: api.GuardrailStatus, rollout: Rollout, seen: Observation, plan: Plan
) -> Json:
    kept = (*plan.status.checkpoint, *rollout.status.checkpoint)
    checkpoint = next((each for each in kept if each.name == status.name), None)
    reading = seen.readings.get(status.name)
    watermark = reading.watermark if reading else checkpoint.watermark if checkpoint else 0.0
    told = status.to_dict()
    del told["slices"]  # the worst ones are in the message
    return {
        **told,
        "watermark": as_time(watermark) if watermark else None,
        "query": _query(status.name, rollout, seen, checkpoint),
    }


def _query(
    name: str, rollout: Rollout, seen: Observation, checkpoint: api.GuardrailCheckpoint | None
) -> Json | None:
    for measure in seen.measures:
        if measure.name == name:
            return _comparison(measure, checkpoint.thresholds if checkpoint else ())
    guardrails = rollout.spec.analysis.guardrails if rollout.spec else ()
    for each in guardrails:
        if each.name == name and each.limit is not None:
            return {"kind": "limit", "expression": each.limit.query}
    return None


def _comparison(measure: Measure, thresholds: Sequence[float]) -> Json:
    query = measure.query
    return {
        "kind": query.kind.value,
        "events": _selector(query.events),
        "total": _selector(query.total) if query.total else None,
        "stable": _matchers(query.stable),
        "candidate": _matchers(query.candidate),
        "thresholds": [f"{each:g}" for each in thresholds],
        "delaySeconds": measure.delay_seconds,
    }


def _selector(selector: Selector) -> Json:
    return {"metric": selector.metric, "matchers": _matchers(selector.matchers)}


def _matchers(matchers: Sequence[Matcher]) -> list[Json]:
    return [
        {"label": each.label, "operator": each.operator.value, "value": each.value}
        for each in matchers
    ]


# --- bounded ------------------------------------------------------------------------------


def _bounded(head: Json, evidence: Json | None) -> Json:
    """With as much of the evidence as there is room for; it is said what was left out."""
    whole = {**head, "evidence": evidence}
    if evidence is None or _fits(whole):
        return whole
    plain = [{**each, "query": None} for each in evidence["guardrails"]]
    less = {**head, "evidence": {**evidence, "guardrails": plain}, "omitted": ["query"]}
    if _fits(less):
        return less
    return {**head, "evidence": None, "omitted": ["evidence"]}


def _fits(body: Json) -> bool:
    return len(_text(body).encode()) <= MAX_BYTES


def _text(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Half of a surrogate pair is not text; nobody is to stumble over it later.
    return text.encode(errors="replace").decode()
