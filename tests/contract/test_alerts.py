"""The chart's alerts, by promtool, on what the operator exports of rollouts in all their states."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

from modelrollout import telemetry
from prometheus_binary import prometheus_binary
from walks import WALKS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "charts" / "modelrollout" / "files" / "alerts.yaml"
RULES = {each["alert"]: each for each in yaml.safe_load(FILE.read_text())["groups"][0]["rules"]}
MINUTES = 60
SHOP = {"namespace": "shop", "name": "ranker"}
LEADER = [{"series": 'modelrollout_leader{job="operator",namespace="system"}', "values": "1x60"}]
HEALTHY_CALLS = [
    {"series": f'modelrollout_calls_total{{server="{server}",outcome="{outcome}"}}', "values": each}
    for server in ("kubernetes", "prometheus")
    for outcome, each in (("answered", "0+100x60"), ("failed", "0+1x60"))
]
ONE_OF_A_ROLLOUT = {
    "rolled_back": {"ModelRolloutRolledBack": {"cause": "GuardrailBreached"}},
    "rolling_back": {
        "ModelRolloutRolledBack": {"cause": "GuardrailBreached"},
        "ModelRolloutRollbackStuck": {},
    },
    "stalled": {"ModelRolloutStalled": {"reason": "RouteNotFound"}},
    "preparing": {"ModelRolloutStuck": {"reason": "Preparing"}},
    "paused": {"ModelRolloutWaitsForSomebody": {"reason": "Paused"}},
    "awaiting_approval": {"ModelRolloutWaitsForSomebody": {"reason": "AwaitingApproval"}},
    "blind": {"ModelRolloutBlind": {"reason": "MetricsUnavailable"}},
    "ill": {"ModelRolloutPlaceboFailed": {}},
    "misrouted": {"ModelRolloutSplitMismatch": {}},
    "progressing": {},
    "baking": {},
    "promoted": {},
    "aborted": {},
}
"""Which alerts fire for a rollout that stays at a place for an hour, with their labels."""
OF_THE_OPERATOR = {
    "nobody leads": (
        [{"series": "modelrollout_leader", "values": "0x60"}],
        {"ModelRolloutOperatorDown": {}},
    ),
    "nothing is scraped": ([], {"ModelRolloutOperatorDown": {}}),
    "two lead": (
        [
            {
                "series": f'modelrollout_leader{{job="operator",namespace="system",pod="{pod}"}}',
                "values": "1x60",
            }
            for pod in "ab"
        ],
        {"ModelRolloutTwoOperators": {"namespace": "system", "job": "operator"}},
    ),
    "each in its own installation leads": (
        [
            {
                "series": f'modelrollout_leader{{job="operator",namespace="{each}"}}',
                "values": "1x60",
            }
            for each in "ab"
        ],
        {},
    ),
    "each of its own shard leads": (
        [
            {
                "series": f'modelrollout_leader{{job="operator",namespace="system",shard="{each}"}}',
                "values": "1x60",
            }
            for each in "ab"
        ],
        {},
    ),
    "nobody leads in one of two shards": (
        [
            {"series": 'modelrollout_leader{shard="a"}', "values": "1x60"},
            {"series": 'modelrollout_leader{shard="b",pod="b-1"}', "values": "0x60"},
            {"series": 'modelrollout_leader{shard="b",pod="b-2"}', "values": "0x60"},
        ],
        {"ModelRolloutOperatorDown": {"shard": "b"}},
    ),
    "a rollout is of two shards": (
        [
            *LEADER,
            *(
                {
                    "series": f'modelrollout_phase{{namespace="shop",name="ranker",phase="{phase}",pod="{pod}"}}',
                    "values": "1x60",
                }
                for pod, phase in (("a", "Promoted"), ("b", "Paused"))
            ),
        ],
        {"ModelRolloutOfTwoShards": SHOP},
    ),
    "each rollout is of one of two shards": (
        [
            *LEADER,
            *(
                {
                    "series": f'modelrollout_{metric}{{namespace="shop",name="{name}",{rest}}}',
                    "values": "1x60",
                }
                for name, ours, other in (("ranker", "a", "b"), ("searcher", "b", "a"))
                for metric, rest in (
                    ("phase", f'phase="Promoted",pod="{ours}"'),
                    ("other_shard", f'pod="{other}"'),
                )
            ),
        ],
        {},
    ),
    "a rollout is of no shard": (
        [
            *LEADER,
            *(
                {
                    "series": f'modelrollout_other_shard{{namespace="shop",name="ranker",pod="{pod}"}}',
                    "values": "1x60",
                }
                for pod in "ab"
            ),
        ],
        {"ModelRolloutOfNoShard": SHOP},
    ),
    "all calls of Prometheus fail": (
        [
            *LEADER,
            *HEALTHY_CALLS[:2],
            *(each | {"values": "0+5x60"} for each in HEALTHY_CALLS[2:]),
        ],
        {"ModelRolloutCallsFail": {"server": "prometheus"}},
    ),
    "half of the passes fail": (
        [
            *LEADER,
            *HEALTHY_CALLS,
            {"series": "modelrollout_pass_failures_total", "values": "0+5x60"},
            {"series": "modelrollout_pass_seconds_count", "values": "0+10x60"},
        ],
        {"ModelRolloutPassesFail": {}},
    ),
    "all is well": ([*LEADER, *HEALTHY_CALLS], {}),
}


def exported(place):
    """What the operator exports of a rollout that was walked to a place, for an hour."""
    key = tuple(SHOP.values())
    telemetry.shown(*key, WALKS[place]().status)
    found = [each for family in REGISTRY.collect() for each in family.samples]
    telemetry.forget(*key)
    return [
        {
            "series": f"{each.name}{json.dumps(each.labels)}".replace('": "', '"="'),
            "values": f"{each.value:f}x{MINUTES}",
        }
        for each in found
        if SHOP.items() <= each.labels.items()
    ]


def told(rule, labels):
    """An alert's texts, with the labels filled in."""

    def filled(text):
        text = re.sub(
            r"\{\{ \$labels\.(\w+) \| toLower \}\}", lambda it: labels[it[1]].lower(), text
        )
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda it: labels[it[1]], text)

    return {key: filled(text) for key, text in rule["annotations"].items()}


def alerts(at, expected, labels):
    """That these alerts and no others fire then."""
    found = []
    for name, rule in RULES.items():
        fires = name in expected and at >= minutes(rule)
        own = {**labels, **expected.get(name, {})}
        entry = (
            {"exp_labels": {**own, **rule["labels"]}, "exp_annotations": told(rule, own)}
            if fires
            else None
        )
        found.append(
            {"eval_time": f"{at}m", "alertname": name, "exp_alerts": [entry] if entry else []}
        )
    return found


def minutes(rule):
    return int(rule.get("for", "0m").removesuffix("m"))


def promtool(folder, tests):
    """promtool's own word on the file; an empty text is a pass."""
    body = {"rule_files": [str(FILE)], "evaluation_interval": "1m", "tests": tests}
    path = folder / "tests.yaml"
    path.write_text(yaml.safe_dump(body))
    program = Path(prometheus_binary()).with_name("promtool")
    done = subprocess.run(
        [program, "test", "rules", path], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("place", WALKS)
def test_a_rollout_is_told_of_where_it_needs_somebody_and_not_before(place, tmp_path):
    expected = ONE_OF_A_ROLLOUT[place]
    series = [*exported(place), *LEADER, *HEALTHY_CALLS]
    moments = {0, 50} | {
        moment
        for name in expected
        for moment in (max(0, minutes(RULES[name]) - 1), minutes(RULES[name]) + 1)
    }
    checks = [each for at in sorted(moments) for each in alerts(at, expected, SHOP)]

    said = promtool(tmp_path, [{"input_series": series, "alert_rule_test": checks}])

    assert said == ""


@pytest.mark.parametrize("place", OF_THE_OPERATOR)
def test_the_operator_is_told_of_when_it_is_ill(place, tmp_path):
    series, expected = OF_THE_OPERATOR[place]
    checks = [each for at in (50,) for each in alerts(at, expected, {})]
    for each in checks:
        for alert in each["exp_alerts"]:
            alert["exp_annotations"]["summary"] = alert["exp_annotations"]["summary"].replace(
                "{{ $value | humanizePercentage }}", "50%"
            )

    said = promtool(tmp_path, [{"input_series": series, "alert_rule_test": checks}])

    assert said == ""


def test_each_alert_fires_in_some_place():
    fired = {name for each in ONE_OF_A_ROLLOUT.values() for name in each}
    fired |= {name for _, each in OF_THE_OPERATOR.values() for name in each}

    assert fired == set(RULES)


def test_each_alert_leads_to_a_paragraph_of_the_runbook():
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    anchors = {each.lower().replace(" ", "-") for each in headings}
    for name, rule in RULES.items():
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert file == "docs/operations.md"
        expected = [
            each.get(name, {}).get("reason", "").lower() for each in ONE_OF_A_ROLLOUT.values()
        ]
        if "{{" in anchor:
            reasons = re.findall(r'reason=~"([^"]+)"', rule["expr"])
            wanted = {one.lower() for each in reasons for one in each.split("|")}
            assert wanted | {each for each in expected if each} <= anchors
        else:
            assert anchor in anchors


def test_each_alert_says_how_bad_it_is_and_what_to_do():
    assert {each["labels"]["severity"] for each in RULES.values()} <= {
        "critical",
        "warning",
        "info",
    }
    for each in RULES.values():
        assert {"summary", "description", "runbook_url"} == set(each["annotations"])
