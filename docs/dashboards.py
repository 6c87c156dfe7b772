"""The Grafana dashboards, as data: a fleet of rollouts, and one of them."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
FLEET = 'namespace=~"$namespace"'
NAMESPACE_ONLY = 'namespace="$namespace"'
ONE = 'namespace="$namespace",name="$name"'
ON_TRIAL = f'modelrollout_phase{{{FLEET},phase=~"Pending|Preparing|Progressing|Paused|Baking|RollingBack"}}'
WIDTH = 24


def fleet() -> Json:
    """What is rolling out, what is stuck, what was rolled back and why, and the operator itself."""
    panels = [
        *row(
            "Now",
            4,
            stat("Rolling out", counted("Pending|Preparing|Progressing|Baking"), "blue"),
            stat("Waiting for somebody", counted("Paused"), "yellow"),
            stat("Rolling back", counted("RollingBack"), "orange"),
            stat("Rolled back", counted("RolledBack"), "red"),
            stat("Stalled", counted("Stalled"), "red"),
            stat("Promoted", counted("Promoted"), "green"),
        ),
        *row(
            "On trial",
            8,
            table(
                "On trial",
                {
                    "phase": f"max by (namespace, name, phase) ({ON_TRIAL})",
                    "weight": on_trial("modelrollout_weight_wanted_ratio"),
                    "accepted": on_trial("modelrollout_weight_accepted_ratio"),
                    "step": on_trial("modelrollout_step"),
                    "of": on_trial("modelrollout_steps"),
                    "in this step": f"time() - {on_trial('modelrollout_step_start_timestamp_seconds')}",
                },
                {
                    "weight": "percentunit",
                    "accepted": "percentunit",
                    "in this step": "s",
                },
                hidden=("phase value",),
            ),
        ),
        *row(
            "What needs somebody, and what was rolled back",
            8,
            table(
                "Stuck, blind or waiting",
                {
                    "reason": (
                        "max by (namespace, name, reason) (modelrollout_condition"
                        f'{{{FLEET},condition="Ready",status="False"}} and on (namespace, name)'
                        ' modelrollout_phase{phase=~"Stalled|Paused"} or modelrollout_condition'
                        f'{{{FLEET},condition="Healthy",reason=~"MetricsUnavailable|ComparatorNotReady|'
                        'SplitMismatch|PlaceboFailed|CandidateNotReady"})'
                    )
                },
                {},
                hidden=("reason value",),
            ),
            table(
                "Rolled back, and why",
                {
                    "since": (
                        "1000 * max by (namespace, name, cause) (modelrollout_rejected_timestamp_seconds"
                        f"{{{FLEET}}} and on (namespace, name)"
                        ' modelrollout_condition{condition="Promoted",status="False"})'
                    )
                },
                {"since": "dateTimeAsIso"},
            ),
        ),
        *row(
            "The operator",
            7,
            series(
                "Decisions",
                {
                    "{{reason}}": (
                        "sum by (reason) (increase(modelrollout_events_total"
                        '{reason=~"Promoted|RolledBack"}[$__rate_interval]))'
                    )
                },
            ),
            series(
                "Leaders (1 for each shard is right)",
                {"leaders {{shard}}": "sum by (shard) (modelrollout_leader)"},
            ),
            series(
                "Calls that failed",
                {
                    "{{server}}": (
                        'sum by (server) (rate(modelrollout_calls_total{outcome="failed"}[$__rate_interval]))'
                        " / sum by (server) (rate(modelrollout_calls_total[$__rate_interval]))"
                    ),
                    "passes": (
                        "sum(rate(modelrollout_pass_failures_total[$__rate_interval]))"
                        " / sum(rate(modelrollout_pass_seconds_count[$__rate_interval]))"
                    ),
                },
                "percentunit",
            ),
            series(
                "How long a pass takes",
                {
                    f"{quantile} quantile": (
                        f"histogram_quantile({quantile}, sum by (le)"
                        " (rate(modelrollout_pass_seconds_bucket[$__rate_interval])))"
                    )
                    for quantile in ("0.5", "0.99")
                },
                "s",
            ),
        ),
    ]
    return dashboard("modelrollout-fleet", "ModelRollout: fleet", panels, [namespaces(many=True)])


def rollout() -> Json:
    """One rollout: where it is, and the evidence."""
    names = variable("name", f"label_values(modelrollout_phase{{{NAMESPACE_ONLY}}}, name)")
    guardrails = variable(
        "guardrail", f"label_values(modelrollout_guardrail_requests{{{ONE}}}, guardrail)", many=True
    )
    panels = [
        *row(
            "$namespace/$name",
            6,
            said("Phase", f"modelrollout_phase{{{ONE}}}", "{{phase}}"),
            said(
                "Why it is not ready",
                f'modelrollout_condition{{{ONE},condition="Ready",status="False"}}',
                "{{reason}}",
            ),
            said("Health", f'modelrollout_condition{{{ONE},condition="Healthy"}}', "{{reason}}"),
            stat("Weight", latest("modelrollout_weight_wanted_ratio"), "blue", "percentunit"),
            stat(
                "In this step for",
                f"time() - {latest('modelrollout_step_start_timestamp_seconds')}",
                "blue",
                "s",
            ),
            stat(
                "Decided at the latest in",
                f"{latest('modelrollout_step_deadline_timestamp_seconds')} - time()",
                "blue",
                "s",
            ),
        ),
        *row(
            "The way",
            8,
            series(
                "Weight",
                {
                    "wanted": latest("modelrollout_weight_wanted_ratio"),
                    "accepted by the gateway": latest("modelrollout_weight_accepted_ratio"),
                },
                "percentunit",
                steps=True,
            ),
            series(
                "Step",
                {"step": latest("modelrollout_step"), "of": latest("modelrollout_steps")},
                steps=True,
            ),
        ),
        *row(
            "The evidence: at 1 it decides",
            9,
            *(
                series(
                    title,
                    {
                        "{{guardrail}}": (
                            f"max by (guardrail) (modelrollout_guardrail_{kind}_ratio{{{ONE}}})"
                        )
                    },
                    limit=1,
                )
                for title, kind in (
                    ("That the candidate is worse", "harm"),
                    ("That it is within the margin", "safety"),
                    ("That stable differs from itself", "placebo"),
                )
            ),
        ),
        *row(
            "Guardrail $guardrail",
            8,
            series(
                "Figure in this step",
                {
                    "{{version}}": (
                        "max by (version) (modelrollout_guardrail_value"
                        f'{{{ONE},guardrail="$guardrail"}})'
                    )
                },
            ),
            series(
                "Requests in this step",
                {
                    "{{version}}": (
                        "max by (version) (modelrollout_guardrail_requests"
                        f'{{{ONE},guardrail="$guardrail"}})'
                    )
                },
            ),
            repeat="guardrail",
        ),
    ]
    variables = [namespaces(many=False), names, guardrails]
    return dashboard("modelrollout-rollout", "ModelRollout: one rollout", panels, variables)


def counted(phases: str) -> str:
    """How many rollouts are in one of the phases."""
    return f'count(modelrollout_phase{{{FLEET},phase=~"{phases}"}}) or vector(0)'


def on_trial(metric: str) -> str:
    """A metric of the rollouts that are under way."""
    return f"max by (namespace, name) ({metric}{{{FLEET}}} and on (namespace, name) {ON_TRIAL})"


def latest(metric: str) -> str:
    """A metric of the one rollout, whoever leads."""
    return f"max({metric}{{{ONE}}})"


# --- Grafana's words ----------------------------------------------------------------------


def stat(title: str, query: str, colour: str, unit: str = "none") -> Json:
    """One number."""
    return {
        "type": "stat",
        "title": title,
        "targets": targets({"": query}, instant=True),
        "fieldConfig": fields(unit, {"color": {"mode": "fixed", "fixedColor": colour}}),
        "options": {"colorMode": "value", "graphMode": "none"},
    }


def said(title: str, query: str, legend: str) -> Json:
    """One word: a label's value."""
    found = targets({legend: query}, instant=True)
    return {
        "type": "stat",
        "title": title,
        "targets": found,
        "fieldConfig": fields("none", {"color": {"mode": "fixed", "fixedColor": "text"}}),
        "options": {"colorMode": "none", "graphMode": "none", "textMode": "name"},
    }


def series(
    title: str,
    queries: dict[str, str],
    unit: str = "none",
    *,
    steps: bool = False,
    limit: float | None = None,
) -> Json:
    """Lines over time, by legend."""
    line: Json = {"lineInterpolation": "stepAfter"} if steps else {}
    defaults: Json = {"custom": line}
    if limit is not None:
        line["thresholdsStyle"] = {"mode": "line"}
        levels = [{"color": "transparent", "value": None}, {"color": "red", "value": limit}]
        defaults["thresholds"] = {"mode": "absolute", "steps": levels}
    return {
        "type": "timeseries",
        "title": title,
        "targets": targets(queries, instant=False),
        "fieldConfig": fields(unit, defaults),
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
    }


def table(
    title: str, columns: dict[str, str], units: dict[str, str], *, hidden: tuple[str, ...] = ()
) -> Json:
    """A row for each rollout, which leads to its own dashboard."""
    found = targets(columns, instant=True)
    values = {f"Value #{each['refId']}": each["legendFormat"] for each in found}
    if len(found) == 1:
        values["Value"] = values.pop("Value #A")
    renamed = {
        key: f"{name} value" if f"{name} value" in hidden else name for key, name in values.items()
    }
    excluded = [key for key, name in renamed.items() if name in hidden]
    link = {
        "title": "this rollout",
        "url": "/d/modelrollout-rollout?var-datasource=${datasource}"
        "&var-namespace=${__data.fields.namespace}&var-name=${__data.fields.name}&${__url_time_range}",
    }
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "unit", "value": unit}],
        }
        for name, unit in units.items()
    ]
    overrides.append(
        {
            "matcher": {"id": "byName", "options": "name"},
            "properties": [{"id": "links", "value": [link]}],
        }
    )
    return {
        "type": "table",
        "title": title,
        "targets": [{**each, "format": "table"} for each in found],
        "fieldConfig": {**fields("none", {}), "overrides": overrides},
        "options": {},
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(["Time", *excluded], True),
                    "renameByName": {
                        key: name for key, name in renamed.items() if key not in excluded
                    },
                },
            },
        ],
    }


def targets(queries: dict[str, str], *, instant: bool) -> list[Json]:
    """Queries by legend."""
    return [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
        }
        for index, (legend, query) in enumerate(queries.items())
    ]


def fields(unit: str, defaults: Json) -> Json:
    """How values are shown."""
    return {"defaults": {"unit": unit, **defaults}, "overrides": []}


def row(title: str, height: int, *panels: Json, repeat: str = "") -> list[Json]:
    """A heading, and panels of the same width below it; placed by `dashboard`."""
    heading: Json = {"type": "row", "title": title, "collapsed": False, "panels": []}
    if repeat:
        heading["repeat"] = repeat
    width = WIDTH // len(panels)
    placed = [
        {**panel, "datasource": SOURCE, "gridPos": {"h": height, "w": width, "x": index * width}}
        for index, panel in enumerate(panels)
    ]
    return [{**heading, "gridPos": {"h": 1, "w": WIDTH, "x": 0}}, *placed]


def namespaces(*, many: bool) -> Json:
    """The namespaces that have ModelRollouts."""
    return variable("namespace", "label_values(modelrollout_phase, namespace)", many=many)


def variable(name: str, query: str, *, many: bool = False) -> Json:
    """A choice above the panels."""
    return {
        "type": "query",
        "name": name,
        "label": name,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        "current": {"text": ["All"], "value": ["$__all"]} if many else {},
    }


def dashboard(uid: str, title: str, panels: list[Json], variables: list[Json]) -> Json:
    """The whole, with its panels from top to bottom."""
    top = height = 0
    for number, panel in enumerate(panels, start=1):
        place = panel["gridPos"]
        if panel["type"] == "row":
            top += height
        place["y"] = top
        top, height = (top + 1, 0) if panel["type"] == "row" else (top, place["h"])
        panel["id"] = number
    source = {"type": "datasource", "name": "datasource", "query": "prometheus", "label": "source"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["modelrollout"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, *variables]},
        "panels": panels,
    }


def text_of(board: Json) -> str:
    """As it is kept."""
    return json.dumps(board, indent=2) + "\n"
