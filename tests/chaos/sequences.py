"""Sequences of edits and perturbations, drawn by number, and what has to be true after each."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from pydantic import ValidationError

from chaos.apiserver import ApiServer
from chaos.disturbances import DISTURBANCES
from chaos.metrics import ANSWER_SECONDS, honest
from chaos.observer import PROPAGATION_SECONDS, Observer
from chaos.operators import Fault
from chaos.run import Outcome, Run
from chaos.stories import BAD, COHORT, GOOD, SCALING, STEP, STICKY, STORIES
from modelrollout.adapters.cluster import DEPLOYMENTS, HTTP_ROUTES, ROLLOUTS, Object
from modelrollout.api.v1alpha1 import ModelRolloutSpec
from modelrollout.errors import NotFound, Refused

NAMES = ("ranker-v2", "ranker-v3")
STEPS = ((10, 50), (1, 5, 20, 50), (30,), (50, 70))
COMMANDS = ("abort", "pause", "resume", "promote", "retry", "skip-step", "approve")
LENGTH = 9
CALM_SECONDS = 90.0
STALE_SECONDS = 3.0
OVER = {"Promoted", "RolledBack"}

ServerOf = Callable[[Callable[[], float]], ApiServer]
Action = Callable[[Run, random.Random], None]


def _edit(run: Run, **spec: object) -> None:
    """As far as the API server would have it."""
    try:
        ModelRolloutSpec.model_validate({**run.rollout["spec"], **spec})
    except ValidationError:
        return
    with contextlib.suppress(Refused):
        run.server.change(ROLLOUTS, "shop", "ranker", **spec)


def _strategy(run: Run, draw: random.Random) -> None:
    steps: list[Object] = [{"weight": each, **STEP} for each in draw.choice(STEPS)]
    if draw.random() < 0.3:
        steps.insert(1, {"pauseSeconds": 5})
    _edit(run, strategy={"steps": steps, "bake": {"seconds": draw.choice([0, 10])}})


def _traffic(run: Run, draw: random.Random) -> None:
    for each in run.observers:
        each.least_requests = 0  # users come and go with the edit; the evidence stays
    given = {"gatewayAPI": run.story.spec["traffic"]["gatewayAPI"]}
    _edit(run, traffic=given | draw.choice([{}, STICKY, COHORT, STICKY | COHORT]))


def _candidate(run: Run, draw: random.Random) -> None:
    _edit(run, candidate={"deployment": draw.choice([*NAMES, "ranker-v1"])})


def _scaling(run: Run, draw: random.Random) -> None:
    _edit(run, **draw.choice([{"scaling": None}, SCALING]))


def _paused(run: Run, draw: random.Random) -> None:
    _edit(run, paused=draw.random() < 0.3)


def _revision(run: Run, draw: random.Random) -> None:
    name = draw.choice(NAMES)
    template = run.server.get(DEPLOYMENTS, "shop", name)["spec"]["template"]
    image = f"{name}:{draw.randrange(3)}"
    changed = {**template, "spec": {"containers": [{"image": image}]}}
    run.server.change(DEPLOYMENTS, "shop", name, template=changed)


def _replicas(run: Run, draw: random.Random) -> None:
    run.server.change(DEPLOYMENTS, "shop", draw.choice(NAMES), replicas=draw.choice([1, 2, 5]))


def _errors(run: Run, draw: random.Random) -> None:
    run.plane.advance()
    run.plane.error_rates[draw.choice(NAMES)] = draw.choice([GOOD, GOOD, BAD])


def _command(run: Run, draw: random.Random) -> None:
    run.command(draw.choice(COMMANDS))


def _kill(run: Run, draw: random.Random) -> None:
    run.kill(run.operators[0], seconds=draw.choice([0.3, 5.0])) if run.operators else None


def _second(run: Run, _draw: random.Random) -> None:
    if len(run.operators) < 3:
        run.start_operator()


def _stale(run: Run, _draw: random.Random) -> None:
    """Another one, that reads what was some seconds ago."""
    if len(run.operators) < 3:
        run.start_operator().connection.lag_seconds = STALE_SECONDS


def _unobserved(run: Run, _draw: random.Random) -> None:
    """No watch tells of anything until all is calm: only timers do."""
    run.is_watching = False
    for each in run.operators:
        each.is_watching = False


def _api(run: Run, draw: random.Random) -> None:
    run.is_api_away = draw.random() < 0.5


def _metrics(run: Run, draw: random.Random) -> None:
    run.prometheus.is_down = draw.random() < 0.3
    run.prometheus.behind_seconds = draw.choice([0.0, 0.0, 20.0])
    run.prometheus.delay_seconds = draw.choice([ANSWER_SECONDS, 3.0])


def _gateway(run: Run, draw: random.Random) -> None:
    if run.plane.gateway_is_down:
        run.plane.resume_gateway()
    else:
        run.plane.gateway_is_down = draw.random() < 0.5


def _pods(run: Run, draw: random.Random) -> None:
    run.observer.may_lose = True
    for each in run.observers:
        each.may_lose = True
    name = draw.choice(NAMES)
    run.plane.sick ^= {name}
    run.plane.follow()


def _new_rollout(run: Run, _draw: random.Random) -> None:
    """Deleted, and created anew as soon as it is gone."""
    run.server.delete(ROLLOUTS, "shop", "ranker")


ACTIONS: tuple[Action, ...] = (
    _strategy, _traffic, _candidate, _candidate, _scaling, _paused, _revision, _replicas, _errors,
    _errors, _command, _command, _command, _kill, _kill, _second, _stale, _unobserved, _api, _metrics, _gateway, _pods,
    _new_rollout,
)  # fmt: skip


def run_sequence(
    number: int, length: int = LENGTH, server_of: ServerOf = ApiServer
) -> tuple[Outcome, list[str]]:
    """One sequence; what came of it, and the actions that were taken."""
    draw = random.Random(number)
    names = [
        name for name, story in STORIES.items() if story.ending == "Promoted" and story.is_good
    ]
    story = STORIES[draw.choice([each for each in names if "commanded" not in each])]
    run = Run(story, _away_when_told, server_of)
    taken = [story.name]

    async def act(_: Run) -> None:
        run.deploy("ranker-v3", 2)
        for each in run.observers:
            each.is_edited, each.least_requests = True, 100
            each.lag_seconds = STALE_SECONDS + PROPAGATION_SECONDS
        for _index in range(length):
            await asyncio.sleep(draw.choice([0.05, 0.5, 2.0, 7.0, 20.0]))
            action = draw.choice(ACTIONS)
            taken.append(f"{run.loop.time():.2f} {action.__name__}")
            try:
                action(run, draw)
            except NotFound:
                run.server.create(ROLLOUTS, "shop", _anew(run))
        await _calm(run)

    run.observers.append(Observer(story, run.server, run.plane, candidate="ranker-v3"))
    return run.go(act), taken


def _away_when_told(run: Run) -> Fault:
    fault_of = DISTURBANCES["no answer for 30 s"].fault_of
    assert fault_of is not None
    return fault_of(run)


def _anew(run: Run) -> Object:
    """With whoever has the users as stable."""
    stable = "ranker-v1"
    with contextlib.suppress(NotFound):
        rules = run.server.get(HTTP_ROUTES, "shop", run.story.route)["spec"]["rules"]
        stable = rules[0]["backendRefs"][0]["name"]
    spec = {**run.story.spec, "stable": {"deployment": stable}}
    return {"metadata": {"name": "ranker"}, "spec": spec}


async def _calm(run: Run) -> None:
    """Everything is as it should be again, and a human lets it go on."""
    run.is_api_away, run.is_watching = False, True
    for operator in run.operators:
        operator.connection.lag_seconds, operator.is_watching = 0.0, True
        operator.list_all()
    run.prometheus.is_down, run.prometheus.behind_seconds = False, 0.0
    run.prometheus.delay_seconds, run.prometheus.distortion = ANSWER_SECONDS, honest
    run.plane.sick.clear()
    for each in NAMES:
        run.server.change(DEPLOYMENTS, "shop", each, replicas=2)
    run.plane.follow()
    run.plane.resume_gateway()
    await asyncio.sleep(CALM_SECONDS)
    try:
        run.rollout  # noqa: B018  # whether it is there
    except NotFound:
        run.server.create(ROLLOUTS, "shop", _anew(run))
    _edit(run, paused=False)
    while run.status.get("phase") not in OVER:
        await asyncio.sleep(30)
        if "pause" in run.status:
            run.command("resume")
        elif run.status.get("phase") == "Paused":
            run.command("approve")


def failures(number: int, server_of: ServerOf = ApiServer) -> list[str]:
    """What must not be after a sequence, with the actions that led to it; empty if all is well."""
    outcome, taken = run_sequence(number, server_of=server_of)
    found = list(outcome.violations)
    if outcome.ending not in OVER:
        found.append(f"ended as {outcome.ending}")
    found += [f"left behind: {each}" for each in outcome.left_behind]
    return [*found, *taken] if found else []
