"""What happens to a rollout in the middle of it, by name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from chaos import metrics
from chaos.faults import INTERNAL, TIMED_OUT, TIMEOUT_SECONDS, TOO_MANY
from chaos.observer import Observer
from chaos.operators import Call, Fault
from chaos.run import Happening, Run, a_route
from chaos.stories import Story
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    HTTP_ROUTES,
    ROLLOUTS,
    SERVICES,
    Object,
)
from modelrollout.errors import NotFound

ROLLED_BACK = frozenset({"RolledBack"})
ANY = frozenset({"Promoted", "RolledBack", "Paused", "Stalled", "Progressing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """A fault, and what may come of it."""

    name: str
    group: str
    act: Happening
    endings: frozenset[str] | None = None
    """What a good candidate may come to; None for what the story says."""
    fault_of: Callable[[Run], Fault] | None = None
    for_scaled: bool | None = None
    """Whether it is about rollouts with spec.scaling, or those without; None for both."""

    def endings_of(self, story: Story) -> frozenset[str]:
        """What a run may come to; a bad candidate is never promoted."""
        found = self.endings or frozenset({story.ending})
        if story.ending == "Deleted":
            return frozenset({"Deleted"}) | (self.endings or frozenset())
        if story.ending == "RolledBack":
            return (found | ROLLED_BACK) - {"Promoted"}
        return found | {story.ending}

    def is_about(self, story: Story) -> bool:
        return self.for_scaled in {None, "scaling" in story.spec}


async def _begun(run: Run) -> None:
    """Users, or copies of their requests, are at the candidate."""
    await run.until(lambda status: "stepStartTime" in status or "stepDeadlineTime" in status)


# --- the API server, and the way to it ----------------------------------------------------


def _failing(choose: Callable[[random.Random], Exception | None]) -> Callable[[Run], Fault]:
    """Every call may fail, before or after it was carried out."""

    def of(_run: Run) -> Fault:
        draw = random.Random(11)

        async def fault(_call: Call, do: Callable[[], Object]) -> Object:
            error = choose(draw)
            if error is None:
                return do()
            if draw.random() < 0.5:
                do()
            if error is TIMED_OUT:
                await asyncio.sleep(TIMEOUT_SECONDS)
            raise error

        return fault

    return of


def _seldom(error: Exception) -> Callable[[Run], Fault]:
    return _failing(lambda draw: error if draw.random() < 0.02 else None)


def _away(run: Run) -> Fault:
    """It answers nothing from the first step on, for half a minute."""

    async def fault(_call: Call, do: Callable[[], Object]) -> Object:
        if run.is_api_away:
            await asyncio.sleep(0.5)
            raise INTERNAL
        return do()

    return fault


async def _is_away(run: Run) -> None:
    await _begun(run)
    run.is_api_away = True
    await asyncio.sleep(30)
    run.is_api_away = False


async def _nothing(_run: Run) -> None:
    return


async def _no_watch(run: Run) -> None:
    run.is_watching = False
    for each in run.operators:
        each.is_watching = False


async def _two_operators(run: Run) -> None:
    run.start_operator()


async def _one_reads_what_was(run: Run) -> None:
    run.start_operator().connection.lag_seconds = 3.0


async def _killed_again_and_again(run: Run) -> None:
    draw = random.Random(5)
    for _ in range(25):
        await asyncio.sleep(draw.uniform(0.1, 3.0))
        if run.operators:
            run.kill(run.operators[0], seconds=0.5)


# --- Prometheus ---------------------------------------------------------------------------


def _distorted(distortion: metrics.Distortion) -> Happening:
    async def act(run: Run) -> None:
        run.prometheus.distortion = distortion

    return act


async def _down_for_a_minute(run: Run) -> None:
    await _begun(run)
    run.prometheus.is_down = True
    await asyncio.sleep(60)
    run.prometheus.is_down = False


async def _down_for_good(run: Run) -> None:
    await _begun(run)
    run.prometheus.is_down = True


async def _slow(run: Run) -> None:
    await _begun(run)
    run.prometheus.delay_seconds = 12
    await asyncio.sleep(60)
    run.prometheus.delay_seconds = metrics.ANSWER_SECONDS


def _behind(seconds: float) -> Happening:
    async def act(run: Run) -> None:
        await _begun(run)
        run.prometheus.behind_seconds = seconds
        await asyncio.sleep(60)
        run.prometheus.behind_seconds = 0

    return act


async def _scrapes_stop(run: Run) -> None:
    await _begun(run)
    run.plane.advance()
    run.plane.is_scraping = False
    await asyncio.sleep(60)
    run.plane.advance()
    run.plane.is_scraping = True


def _clock_moves(seconds: float) -> Happening:
    async def act(run: Run) -> None:
        await _begun(run)
        run.skew = seconds

    return act


# --- the gateway --------------------------------------------------------------------------


async def _controller_down(run: Run) -> None:
    await run.until(lambda status: "candidate" in status)
    run.plane.gateway_is_down = True
    await asyncio.sleep(60)
    run.plane.resume_gateway()


async def _controller_down_later(run: Run) -> None:
    await _begun(run)
    run.plane.gateway_is_down = True
    await asyncio.sleep(60)
    run.plane.resume_gateway()


async def _refused(run: Run) -> None:
    await run.until(lambda status: "candidate" in status)
    run.plane.refusal = "no such listener"
    await asyncio.sleep(60)
    run.plane.resume_gateway()


async def _edited_by_hand(run: Run) -> None:
    await _begun(run)
    live = run.server.get(HTTP_ROUTES, "shop", run.story.route)
    rules = [dict(each) for each in live["spec"]["rules"]]
    refs = [dict(each, weight=50) for each in rules[0]["backendRefs"]]
    rules[0] = {**rules[0], "backendRefs": refs}
    run.observer.is_meddled_with = True
    run.server.change(HTTP_ROUTES, "shop", run.story.route, rules=rules)
    await asyncio.sleep(5)
    run.observer.is_meddled_with = False


async def _route_deleted(run: Run) -> None:
    await _begun(run)
    run.observer.may_lose = True
    run.server.delete(HTTP_ROUTES, "shop", run.story.route)
    await asyncio.sleep(20)
    if "route" in run.story.spec["traffic"]["gatewayAPI"]:
        run.observer.is_meddled_with = True
        run.server.create(HTTP_ROUTES, "shop", a_route(run.story.route))
        run.plane.resume_gateway()
        await asyncio.sleep(10)
        run.observer.is_meddled_with = False


# --- pods, Deployments, Services ----------------------------------------------------------


async def _pods_die(run: Run) -> None:
    await _begun(run)
    run.observer.news = run.clock()
    run.observer.may_lose = True
    run.plane.sick.add(run.observer.candidate)
    run.plane.follow()


async def _pods_restart(run: Run) -> None:
    """One by one, as after an OOM kill: somebody always answers, counters begin anew."""
    for _ in range(10):
        await asyncio.sleep(4)
        run.plane.advance()
        for name in list(run.plane.pods):
            try:
                run.plane.start_pod(run.server.get(DEPLOYMENTS, "shop", name))
            except NotFound:
                continue


async def _candidate_deleted(run: Run) -> None:
    await _begun(run)
    run.observer.news = run.clock()
    run.observer.may_lose = True
    run.server.delete(DEPLOYMENTS, "shop", run.observer.candidate)


async def _candidate_renamed(run: Run) -> None:
    """Another Deployment with its Service takes its place, and some seconds later the spec says so."""
    await _begun(run)
    run.observer.news = run.clock()
    run.plane.error_rates["ranker-v4"] = run.story.errors
    run.observers.append(Observer(run.story, run.server, run.plane, candidate="ranker-v4"))
    for each in run.observers:
        each.may_lose = True
    replicas = run.server.get(DEPLOYMENTS, "shop", run.observer.candidate)["spec"]["replicas"]
    run.deploy("ranker-v4", replicas)
    run.server.delete(DEPLOYMENTS, "shop", run.observer.candidate)
    await asyncio.sleep(10)
    run.server.change(ROLLOUTS, "shop", "ranker", candidate={"deployment": "ranker-v4"})


def _not_started(excuse: Object, quoted: str) -> Happening:
    """No pod of the candidate starts for a minute, and status says in whose words why."""

    async def act(run: Run) -> None:
        run.plane.excuses[run.observer.candidate] = excuse
        run.plane.sick.add(run.observer.candidate)
        run.plane.follow()
        await asyncio.sleep(60)
        if "deletionTimestamp" not in run.rollout["metadata"] and quoted not in str(run.status):
            run.observer.violations.append(f"status does not say {quoted}: {run.status['reason']}")
        run.plane.sick.clear()
        run.plane.follow()

    return act


_UNPULLED = 'Back-off pulling image "ranker-v2:1": ErrImagePull: not found'
_NOT_PULLED = _not_started(
    {
        "containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": _UNPULLED}}}
        ]
    },
    _UNPULLED,
)
_NO_NODE = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
_NOT_PLACED = _not_started(
    {
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": _NO_NODE,
            }
        ]
    },
    _NO_NODE,
)


async def _service_deleted(run: Run) -> None:
    await _begun(run)
    run.observer.news = run.clock()
    run.observer.may_lose = True
    run.server.delete(SERVICES, "shop", run.observer.candidate)


async def _comparator_deleted(run: Run) -> None:
    await _begun(run)
    for resource in (SERVICES, DEPLOYMENTS):
        try:
            run.server.delete(resource, "shop", "ranker-comparator")
        except NotFound:
            continue
        await asyncio.sleep(20)


async def _stable_deleted_and_back(run: Run) -> None:
    await _begun(run)
    run.observer.may_lose = True
    gone = run.server.get(DEPLOYMENTS, "shop", run.observer.stable)
    run.server.delete(DEPLOYMENTS, "shop", run.observer.stable)
    await asyncio.sleep(20)
    body = {"metadata": {"name": run.observer.stable, "labels": {}}, "spec": gone["spec"]}
    run.server.create(DEPLOYMENTS, "shop", body)


async def _quota(run: Run) -> None:
    run.plane.quota = 1
    await asyncio.sleep(60)
    run.plane.quota = None
    run.plane.follow()


async def _two_scale(run: Run) -> None:
    """A human and an autoscaler, who do not know of each other."""
    draw = random.Random(3)
    for _ in range(20):
        await asyncio.sleep(draw.uniform(0.5, 4))
        for name in (run.observer.candidate, run.observer.stable):
            run.server.change(DEPLOYMENTS, "shop", name, replicas=draw.choice([2, 3, 7]))


async def _scaled_to_nothing(run: Run) -> None:
    await _begun(run)
    run.observer.news = run.clock()
    run.observer.may_lose = True
    run.server.change(DEPLOYMENTS, "shop", run.observer.candidate, replicas=0)


# --- the spec -----------------------------------------------------------------------------


async def _edited_all_the_time(run: Run) -> None:
    for count in range(40):
        await asyncio.sleep(1.7)
        try:
            analysis = run.rollout["spec"]["analysis"]
        except NotFound:
            return
        patience = {**analysis, "noDataTimeoutSeconds": 100 + count}
        run.server.change(ROLLOUTS, "shop", "ranker", analysis=patience)


async def _another_revision(run: Run) -> None:
    await _begun(run)
    live = run.server.get(DEPLOYMENTS, "shop", run.observer.candidate)
    template = live["spec"]["template"]
    image = {**template, "spec": {"containers": [{"image": "another"}]}}
    run.server.change(DEPLOYMENTS, "shop", run.observer.candidate, template=image)


async def _other_steps(run: Run) -> None:
    await _begun(run)
    strategy = run.rollout["spec"]["strategy"]
    run.observer.least_requests = 100  # the default: the step in force is none of the list's
    steps = strategy.get("steps", [])
    if strategy.get("type", "Canary") == "Canary" and "weight" in steps[-1]:
        changed = [*steps[:-1], {**steps[-1], "weight": 70}]
        run.server.change(ROLLOUTS, "shop", "ranker", strategy={**strategy, "steps": changed})


async def _paused_and_back(run: Run) -> None:
    await _begun(run)
    run.server.change(ROLLOUTS, "shop", "ranker", paused=True)
    await asyncio.sleep(60)
    run.server.change(ROLLOUTS, "shop", "ranker", paused=False)


async def _another_claims_the_rule(run: Run) -> None:
    """It begins when the first one has, is told why it is refused, and goes away again."""
    await _begun(run)
    body = {"metadata": {"name": "ranker-b"}, "spec": _rival_of(run)}
    run.server.create(ROLLOUTS, "shop", body)
    await asyncio.sleep(0.25)
    conditions = run.server.get(ROLLOUTS, "shop", "ranker-b")["status"]["conditions"]
    reasons = [each["reason"] for each in conditions if each["type"] == "Accepted"]
    if reasons != ["AlreadyClaimed"]:
        run.observer.violations.append(f"another ModelRollout on the same rule: {reasons}")
    await asyncio.sleep(20)
    run.server.delete(ROLLOUTS, "shop", "ranker-b")


async def _another_is_older(run: Run) -> None:
    """Whoever has moved users goes on, also when an older one is edited to the same rule."""
    await _begun(run)
    body = {"metadata": {"name": "a", "creationTimestamp": "2000"}, "spec": _rival_of(run)}
    run.server.create(ROLLOUTS, "shop", body)
    await asyncio.sleep(10)
    run.server.delete(ROLLOUTS, "shop", "a")


def _rival_of(run: Run) -> Object:
    """Another candidate on the same route and rule."""
    run.deploy("ranker-v3", 2)
    route = {"route": run.story.route, "rule": run.rule}
    spec = run.story.spec
    return {
        **{key: spec[key] for key in ("stable", "port", "analysis")},
        "candidate": {"deployment": "ranker-v3"},
        "traffic": {"gatewayAPI": route},
        "strategy": {"steps": [{"weight": 40}]},
    }


async def _namespace_deleted(run: Run) -> None:
    await _begun(run)
    run.observer.may_lose = True
    run.server.terminating.add("shop")
    for address in [*run.server.everything()]:
        await asyncio.sleep(0.01)
        for resource in (HTTP_ROUTES, ROLLOUTS, SERVICES, DEPLOYMENTS):
            if resource.plural == address[0]:
                try:
                    run.server.delete(resource, "shop", address[2])
                except NotFound:
                    continue


DISTURBANCES = {
    each.name: each
    for each in (
        Disturbance(name="nothing", group="", act=_nothing),
        Disturbance(name="killed 25 times in a row", group="operator", act=_killed_again_and_again),
        Disturbance(name="two operators all the time", group="operator", act=_two_operators),
        Disturbance(
            name="two operators, one reads what was 3 s ago",
            group="operator",
            act=_one_reads_what_was,
        ),
        Disturbance(name="all watches cut", group="API server", act=_no_watch),
        Disturbance(name="no answer for 30 s", group="API server", act=_is_away, fault_of=_away),
        Disturbance(
            name="1 of 50 calls gets 429",
            group="API server",
            act=_nothing,
            fault_of=_seldom(TOO_MANY),
        ),
        Disturbance(
            name="1 of 50 calls is answered too late, half of them carried out",
            group="API server",
            act=_nothing,
            fault_of=_seldom(TIMED_OUT),
        ),
        Disturbance(name="down for 60 s", group="Prometheus", act=_down_for_a_minute),
        Disturbance(
            name="down for good", group="Prometheus", act=_down_for_good, endings=ROLLED_BACK
        ),
        Disturbance(name="answers after 12 s for 60 s", group="Prometheus", act=_slow),
        Disturbance(
            name="every fifth sample is NaN",
            group="Prometheus",
            act=_distorted(metrics.not_a_number),
        ),
        Disturbance(
            name="every fifth sample is Inf", group="Prometheus", act=_distorted(metrics.infinite)
        ),
        Disturbance(
            name="nothing but NaN",
            group="Prometheus",
            act=_distorted(metrics.only_nonsense),
            endings=ROLLED_BACK,
        ),
        Disturbance(
            name="every series twice",
            group="Prometheus",
            act=_distorted(metrics.doubled),
            endings=ANY,
        ),
        Disturbance(
            name="half of the series",
            group="Prometheus",
            act=_distorted(metrics.halved),
            endings=ANY,
        ),
        Disturbance(
            name="counters that go backwards",
            group="Prometheus",
            act=_distorted(metrics.backwards),
            endings=ANY,
        ),
        Disturbance(
            name="negative counters",
            group="Prometheus",
            act=_distorted(metrics.negative),
            endings=ANY,
        ),
        Disturbance(
            name="a second replica with gaps",
            group="Prometheus",
            act=_distorted(metrics.second_replica),
        ),
        Disturbance(name="30 s behind for 60 s", group="Prometheus", act=_behind(30)),
        Disturbance(name="an hour behind for 60 s", group="Prometheus", act=_behind(3600)),
        Disturbance(name="no scrapes for 60 s", group="Prometheus", act=_scrapes_stop),
        Disturbance(
            name="clock an hour ahead",
            group="operator",
            act=_clock_moves(3600),
            endings=ANY,
        ),
        Disturbance(
            name="clock an hour back",
            group="operator",
            act=_clock_moves(-3600),
            endings=ROLLED_BACK,
        ),
        Disturbance(
            name="controller down for 60 s before the first step",
            group="gateway",
            act=_controller_down,
        ),
        Disturbance(
            name="controller down for 60 s in the first step",
            group="gateway",
            act=_controller_down_later,
        ),
        Disturbance(name="refuses the route for 60 s", group="gateway", act=_refused),
        Disturbance(name="weights edited by hand", group="gateway", act=_edited_by_hand),
        Disturbance(
            name="route deleted, made anew after 20 s",
            group="gateway",
            act=_route_deleted,
            endings=ANY,
        ),
        Disturbance(
            name="all pods of the candidate die",
            group="pods",
            act=_pods_die,
            endings=frozenset({"RolledBack", "Progressing", "Paused"}),
        ),
        Disturbance(name="pods restart every 4 s", group="pods", act=_pods_restart),
        Disturbance(
            name="the candidate's Deployment deleted",
            group="pods",
            act=_candidate_deleted,
            endings=frozenset({"RolledBack", "Stalled"}),
        ),
        Disturbance(
            name="the candidate's Deployment renamed, then the spec",
            group="pods",
            act=_candidate_renamed,
        ),
        Disturbance(
            name="the candidate's image cannot be pulled for 60 s", group="pods", act=_NOT_PULLED
        ),
        Disturbance(
            name="no node has room for the candidate for 60 s", group="pods", act=_NOT_PLACED
        ),
        Disturbance(
            name="the candidate's Service deleted",
            group="pods",
            act=_service_deleted,
            endings=ROLLED_BACK,
        ),
        Disturbance(
            name="stable's Deployment deleted, back after 20 s",
            group="pods",
            act=_stable_deleted_and_back,
            endings=ANY,
        ),
        Disturbance(name="the comparator's objects deleted", group="pods", act=_comparator_deleted),
        Disturbance(name="quota of one pod for 60 s", group="pods", act=_quota, for_scaled=True),
        Disturbance(
            name="a human and an autoscaler scale", group="pods", act=_two_scale, endings=ANY
        ),
        Disturbance(
            name="the candidate scaled to 0 by hand",
            group="pods",
            act=_scaled_to_nothing,
            endings=ANY,
        ),
        Disturbance(name="edited every 1.7 s", group="spec", act=_edited_all_the_time),
        Disturbance(name="another revision", group="spec", act=_another_revision),
        Disturbance(name="other steps", group="spec", act=_other_steps),
        Disturbance(name="paused for 60 s", group="spec", act=_paused_and_back),
        Disturbance(
            name="a ModelRollout that claims the same rule",
            group="spec",
            act=_another_claims_the_rule,
        ),
        Disturbance(
            name="an older ModelRollout on the same rule", group="spec", act=_another_is_older
        ),
        Disturbance(
            name="the namespace is deleted",
            group="spec",
            act=_namespace_deleted,
            endings=frozenset({"Deleted"}),
        ),
    )
}
