"""`modelrollout backtest`: options in, `modelrollout.backtest` in between, sentences out."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from modelrollout.adapters.prometheus import LABEL_NAME, Prometheus
from modelrollout.api.presets import SPLIT_BY_ROUTE
from modelrollout.backtest import halves, release, report
from modelrollout.backtest.history import Advance, Period, Pods, Question, Unfit
from modelrollout.cli.files import manifest
from modelrollout.errors import MetricsUnavailable

POD = "pod"
ROLLOUT_SECONDS = 3600.0
SPLITS = 20
UNIX_SECONDS = re.compile(r"[0-9]+([.][0-9]*)?")
FILE = click.Path(exists=True, dir_okay=False)


class _Time(click.ParamType[float]):
    """RFC 3339 with its offset, or Unix seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float) or UNIX_SECONDS.fullmatch(value):
            return float(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            told = f"{value!r} is neither RFC 3339 (2026-01-31T12:00:00Z) nor seconds"
            self.fail(told, param, ctx)
        return moment.timestamp()


class _Regex(click.ParamType[str]):
    """A regular expression, as Prometheus anchors it: for the whole value."""

    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is not a regular expression: {error}", param, ctx)
        return str(value)


@click.command()
@click.argument("file", metavar="ROLLOUT.yaml", type=FILE)
@click.option("--prometheus", "url", metavar="URL", required=True, help="Its address.")
@click.option("--stable", type=_Regex(), required=True, help="Pods of the stable version.")
@click.option("--candidate", type=_Regex(), help="Pods of the candidate. Not with --aa.")
@click.option("--label", default=POD, show_default=True, help="Match this label instead of pod.")
@click.option(
    "--namespace", help="Of the series. Without --label: the manifest's, if it names one."
)
@click.option("--from", "start", type=_Time(), required=True, help="RFC 3339, or Unix seconds.")
@click.option("--to", "end", type=_Time(), required=True, help="RFC 3339, or Unix seconds.")
@click.option(
    "--interval",
    type=click.FloatRange(min=1, max=3600),
    help="Seconds between two looks.  [default: spec.analysis.intervalSeconds]",
)
@click.option("--aa", is_flag=True, help="Judge random halves of stable's pods: false alarms.")
@click.option(
    "--rollout-seconds",
    type=click.FloatRange(min=60),
    help=f"With --aa: length of a rollout.  [default: {ROLLOUT_SECONDS:g}]",
)
@click.option(
    "--splits",
    type=click.IntRange(1, 1000),
    help=f"With --aa: random splits of the pods for each rollout.  [default: {SPLITS}]",
)
@click.option("--seed", type=int, help="With --aa: of the random splits.  [default: 1]")
@click.option("--header", "headers", multiple=True, metavar="'K: V'", help="Repeatable.")
@click.option("--bearer-token-file", type=FILE)
@click.option("--ca-file", type=FILE)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    help="Seconds for one answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything, as JSON.")
def backtest(**options: Any) -> None:
    """
    Say what the guardrails of ROLLOUT.yaml would have decided in the past.

    Reads raw counters from --from to --to, from a Prometheus that remembers them. With --aa there
    was no release: halves of one version's pods are compared, and each rollback is a false alarm.
    """
    question = _question(options)
    draw = _draw(options, question.period) if options["aa"] else None
    if draw is None:
        _check_versions(options)
    else:
        _check_halves(options, question)
    _say_what_counts_at_the_gateway(question)
    prometheus = _prometheus(options)
    try:
        with _progress(question, draw) as advance:
            found = asyncio.run(_found(prometheus, question, draw, options, advance))
    except Unfit as error:
        raise click.UsageError(str(error)) from error
    except MetricsUnavailable as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    finally:
        prometheus.close()
    click.echo(found)


async def _found(
    prometheus: Prometheus,
    question: Question,
    draw: halves.Draw | None,
    options: Mapping[str, Any],
    advance: Advance,
) -> str:
    """What is printed."""
    stable, candidate = options["stable"], options["candidate"]
    if draw is None:
        told = await release.replayed(prometheus, question, stable, candidate, advance)
        if options["as_json"]:
            return json.dumps(report.release_json(told), indent=2)
        return "\n".join(report.release_text(told))
    counted = await halves.calibrated(prometheus, question, stable, draw, advance)
    if options["as_json"]:
        return json.dumps(report.calibration_json(counted, _limits(question)), indent=2)
    return "\n".join(report.calibration_text(counted, _limits(question)))


@contextmanager
def _progress(question: Question, draw: halves.Draw | None) -> Iterator[Advance]:
    """Advances a bar on stderr, where there is somebody to look at it."""
    # Guardrails are read one by one, halves of a stretch are judged by all at once.
    parts = 1 if draw else len(question.analysis.guardrails)
    length = int(question.period.seconds) * parts
    with click.progressbar(length=length, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield lambda seconds: bar.update(int(seconds))


# --- options ------------------------------------------------------------------------------------


def _question(options: Mapping[str, Any]) -> Question:
    given = manifest(Path(options["file"]))
    label, namespace = options["label"], options["namespace"]
    if not LABEL_NAME.fullmatch(label):
        raise click.UsageError(f"--label {label!r} is not the name of a label")
    if namespace is None and label == POD:
        namespace = (given.body.get("metadata") or {}).get("namespace")
    analysis = given.spec.analysis
    interval = options["interval"] or float(analysis.interval_seconds)
    return Question(
        analysis=analysis,
        namespace=given.namespace,
        pods=Pods(label=label, namespace=namespace),
        period=_period(options["start"], options["end"], interval),
    )


def _limits(question: Question) -> list[str]:
    return [each.name for each in question.analysis.guardrails if each.limit is not None]


def _say_what_counts_at_the_gateway(question: Question) -> None:
    guardrails = question.analysis.guardrails
    names = [each.name for each in guardrails if each.preset in SPLIT_BY_ROUTE]
    if names and question.pods.label == POD:
        click.echo(
            f"{', '.join(names)}: counted at the gateway, whose pods serve all versions. Tell these"
            " by --label envoy_cluster_name, or, with --aa, name the gateway's pods and their"
            " --namespace.",
            err=True,
        )


def _check_versions(options: Mapping[str, Any]) -> None:
    if options["candidate"] is None:
        raise click.UsageError(
            "--candidate is missing: give its pods, or --aa to compare halves of stable's"
        )
    if options["candidate"] == options["stable"]:
        raise click.UsageError(
            "--candidate and --stable are the same: to compare halves of one version give --aa and"
            " leave --candidate out"
        )
    for name in ("rollout_seconds", "splits", "seed"):
        if options[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is for --aa: give both or neither")


def _check_halves(options: Mapping[str, Any], question: Question) -> None:
    if options["candidate"] is not None:
        raise click.UsageError("--candidate does not go with --aa, which compares stable's halves")
    if len(_limits(question)) == len(question.analysis.guardrails):
        raise click.UsageError(
            "--aa needs a guardrail that compares the versions: all of the manifest's are limits"
        )


def _period(start: float, end: float, interval: float) -> Period:
    if end > time.time():
        raise click.UsageError("--to lies in the future: a backtest reads the past")
    if end - start < 2 * interval:
        raise click.UsageError(
            f"--to must lie at least two looks ({2 * interval:g} s) after --from, not"
            f" {end - start:g} s"
        )
    return Period(start=start, end=end, width=interval)


def _draw(options: Mapping[str, Any], period: Period) -> halves.Draw:
    draw = halves.Draw(
        seconds=options["rollout_seconds"] or ROLLOUT_SECONDS,
        splits=options["splits"] or SPLITS,
        seed=1 if options["seed"] is None else options["seed"],
    )
    if draw.seconds < 2 * period.width:
        raise click.UsageError(
            f"--rollout-seconds must be at least two looks ({2 * period.width:g} s), not"
            f" {draw.seconds:g}"
        )
    if not draw.stretches(period):
        raise click.UsageError(
            f"--rollout-seconds {draw.seconds:g} is more than there is from --from to --to"
            f" ({period.end - period.start:g} s): give less, or a longer history"
        )
    return draw


def _prometheus(options: Mapping[str, Any]) -> Prometheus:
    try:
        return Prometheus(
            options["url"],
            headers=_headers(options["headers"]),
            bearer_token_file=options["bearer_token_file"],
            ca_file=options["ca_file"],
            timeout_seconds=options["timeout"],
        )
    except ValueError as error:
        raise click.UsageError(f"--prometheus: {error}") from error


def _headers(given: Sequence[str]) -> dict[str, str]:
    headers = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise click.UsageError("--header must be 'Name: value', with a colon")
        headers[name.strip()] = value.strip()
    return headers
