"""
Holds the world against the rules that no code path may break.

It reads the objects in the API server, what the gateway has in force and what pods answer; of the
operator it knows nothing, and the operator nothing of it.
"""

from __future__ import annotations

from chaos.apiserver import ApiServer
from chaos.clock import BEGAN
from chaos.plane import COHORT, COMPARATOR, Plane
from chaos.stories import Story
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HTTP_ROUTES,
    ROLLOUTS,
    Object,
)
from modelrollout.api import v1alpha1 as api
from modelrollout.errors import NotFound

TRICKLE = 0.001
"""Less than this part of the users is nobody: a backend on its way on to the route or off it."""
REACTION_SECONDS = 15.0
"""Pods that die are to lose their users in this time."""
PROPAGATION_SECONDS = 0.5
GOES_ON = {"approve", "skip-step", "promote"}
OWN = ("modelrollout-ranker-cohort", "modelrollout-ranker-sticky")


class Observer:
    """Watches one rollout."""

    def __init__(
        self, story: Story, server: ApiServer, plane: Plane, candidate: str | None = None
    ) -> None:
        self._story = story
        self._server = server
        self._plane = plane
        self.violations: list[str] = []
        self.commands: list[tuple[float, str]] = []
        """What humans asked for, and when."""
        self._carried_out: list[tuple[float, str]] = []
        """What of it was taken off the object again, and when."""
        self.may_lose = False
        """Requests may find nobody: pods, Services or routes are taken away."""
        self.is_meddled_with = False
        """Somebody else moves users."""
        self.least_requests = 2000
        """Of the candidate, for a step to be passed."""
        self.first_exposure: float | None = None
        self.candidate = candidate or str(story.spec["candidate"]["deployment"])
        self.is_edited = False
        """Steps and versions are exchanged: their numbers say nothing."""
        self.stable = str(story.spec["stable"]["deployment"])
        self._share = 0.0
        self._rose = 0.0
        """When the candidate's share last rose, Unix seconds."""
        self.lag_seconds = PROPAGATION_SECONDS
        """As late as whoever sends users to the candidate may know of its pods."""
        self._emptied = 0.0
        """When the candidate lost its last ready pod, Unix seconds."""
        self._unanswered: float | None = None
        """Since when users are sent to a candidate that has no ready pod."""
        self.last_exposure: float | None = None
        """When a user could last reach the candidate."""
        self.news: float | None = None
        """When it was first known that the candidate is bad, Unix seconds."""
        self._last_stable = self.stable
        self._on_trial = 0.0
        """When it was taken off trial, Unix seconds."""
        plane.told.append(self._shared_out)
        server.listeners.append(self._written)

    def _says(self, text: str) -> None:
        said = f"{self._server.now() - BEGAN:.2f} s: {text}"
        if len(self.violations) < 20:
            self.violations.append(said)

    @property
    def status(self) -> Object:
        try:
            found: Object = self._server.get(ROLLOUTS, "shop", "ranker").get("status", {})
        except NotFound:
            return {}
        return found

    def seconds_to_safety(self) -> float | None:
        """From the news until no user could reach the candidate."""
        news = [time for time, text in self.commands if text == "abort"]
        if not self._story.is_good and self.first_exposure is not None:
            news.append(self.first_exposure)
        if self.news is not None:
            news.append(self.news)
        if not news or self.last_exposure is None:
            return None
        return max(0.0, self.last_exposure - min(news))

    # --- the data plane -------------------------------------------------------------------

    def _shared_out(self) -> None:
        share, status = self._plane.sent(self.candidate), self.status
        if self._is_stable(self.candidate):
            self._share = share
            return
        if share > 0 or self._share > 0:
            self.last_exposure = self._server.now()
            self.first_exposure = self.first_exposure or self.last_exposure
        self._endpoints_are_there()
        if share > self._share + TRICKLE + (COHORT if self.is_edited else 0):
            if not self.is_meddled_with:
                self._may_rise(share, status)
            self._rose = self._server.now()
        self._share = share
        if self._plane.lost_share > TRICKLE and not self.may_lose:
            self._says(f"{self._plane.lost_share:.1%} of the users find nobody")
        if share > TRICKLE and self._plane.mirrored(self._story.route):
            self._says("users are on a candidate that is mirrored to")
        self._holds_on(share)

    def _is_stable(self, deployment: str) -> bool:
        """Also after the ModelRollout is gone."""
        return self._last_stable == deployment

    def _holds_on(self, share: float) -> None:
        """The finalizer is there while traffic is away from rest, and the route says so."""
        is_away = share > 0 or self._plane.mirrored(self._story.route)
        if not is_away or not self._is_on_route():
            return
        try:
            live = self._server.get(ROLLOUTS, "shop", "ranker")
        except NotFound:
            self._says("users are on the candidate of a ModelRollout that is gone")
            return
        if api.FINALIZER not in live["metadata"].get("finalizers", []):
            self._says("traffic is away from rest without a finalizer")

    def _is_on_route(self) -> bool:
        """Not only in the gateway, which has yet to take up that it is not."""
        try:
            route = self._server.get(HTTP_ROUTES, "shop", self._story.route)
        except NotFound:
            return False
        rules = route["spec"]["rules"]
        backends = {each["name"] for rule in rules for each in rule.get("backendRefs", [])}
        filters = {each["type"] for rule in rules for each in rule.get("filters", [])}
        return self.candidate in backends or "RequestMirror" in filters

    def _endpoints_are_there(self) -> None:
        """Users who are sent to nobody's Service are soon sent elsewhere."""
        route = self._plane.rules.get(self._story.route, [])
        sent = any(
            each["name"] == self.candidate and each.get("weight", 1) > 1
            for rule in route
            for each in rule.get("backendRefs", [])
        )
        is_served = self._plane.endpoints(self.candidate) > 0
        if not sent or is_served or not self._is_on_route():
            self._unanswered = None
        elif self._unanswered is None:
            self._unanswered = self._server.now()

    def pods_were_left_alone(self, grace: float = REACTION_SECONDS, *, can_act: bool) -> None:
        """Asked from time to time; the time starts anew when the operator's word counts again."""
        if not can_act and self._unanswered is not None:
            self._unanswered = self._server.now()
        since = None if self._is_stable(self.candidate) else self._unanswered
        if since is not None and self._server.now() - since > grace:
            self._says("users are sent to a candidate without a ready pod")
            self._unanswered = None

    def _may_rise(self, share: float, status: Object) -> None:
        trial, lost = status.get("candidate"), status.get("rejected")
        if self._server.now() - self._on_trial < PROPAGATION_SECONDS:
            return  # what was written then has only now arrived
        if trial is None or trial["deployment"] != self.candidate:
            self._says(f"{share:.1%} of the users get a candidate that is not on trial")
            return
        if lost is not None and (lost["deployment"], lost["revision"]) == (
            trial["deployment"],
            trial["revision"],
        ):
            self._says("a rejected revision gets users")
        is_known = self._server.now() - self._emptied > self.lag_seconds
        if self._plane.endpoints(self.candidate) < 1 and is_known:
            self._says("users are sent to a candidate without a ready pod")
        if self._share <= TRICKLE or GOES_ON & self._commanded():
            return
        if not self.is_edited and self._has_approval_behind():
            self._says("an approval was passed without a human")
        seen = self._plane.answered(self.candidate, self._rose)
        if seen < self.least_requests:
            self._says(f"the share rose to {share:.1%} on {seen:.0f} requests")
        if not self._story.is_good and share > 0.25:
            self._says("a bad candidate got more users")

    def _commanded(self) -> set[str]:
        """What has been carried out since the share last rose, or is being: a share arrives late."""
        done = {text for time, text in self._carried_out if time >= self._rose}
        return done | {_command(self._server.get(ROLLOUTS, "shop", "ranker"))}

    def _has_approval_behind(self) -> bool:
        """The step after the share that was is an approval."""
        steps = self._story.spec["strategy"].get("steps", [])
        weights = [each.get("weight") for each in steps]
        near = [place for place, each in enumerate(weights) if each and self._is_near(each)]
        following = steps[near[0] + 1 :] if near else []
        return bool(following) and "approval" in following[0]

    def _is_near(self, weight: int) -> bool:
        return abs(self._share * 100 - weight) < 3

    # --- the objects ----------------------------------------------------------------------

    def _written(self, plural: str, before: Object | None, after: Object | None) -> None:
        if after is None or before is None:
            return
        if plural == HTTP_ROUTES.plural and after["metadata"]["name"] == self._story.route:
            self._route_written(before, after)
        if plural == ROLLOUTS.plural and after["metadata"]["name"] == "ranker":
            if _command(before) and not _command(after):
                self._carried_out.append((self._server.now(), _command(before)))
            self._status_written(before.get("status", {}), after.get("status", {}))
        if plural == DEPLOYMENTS.plural:
            self._scaled(before, after)
        if plural == ENDPOINT_SLICES.plural and after["metadata"]["name"] == self.candidate:
            is_emptied = before["endpoints"] and not after["endpoints"]
            self._emptied = self._server.now() if is_emptied else self._emptied

    def _route_written(self, before: Object, after: Object) -> None:
        if "gateway" in self._story.spec["traffic"]["gatewayAPI"]:
            return
        signers = [e["manager"] for e in after["metadata"].get("managedFields", [])]
        is_edited = before["spec"] != after["spec"] and not self.is_meddled_with
        if is_edited and signers and _foreign(before) != _foreign(after):
            self._says("what is not ours on the route was changed")

    def _status_written(self, before: Object, after: Object) -> None:
        if (
            before.get("candidate", {}).get("deployment")
            == self.candidate
            != (after.get("candidate", {}).get("deployment"))
        ):
            self._on_trial = self._server.now()
        old, new = before.get("history", []), after.get("history", [])
        if old and new[len(new) - len(old) :] != old and len(new) < 20:
            self._says("history was lost")
        fresh = {each["what"] for each in new[: len(new) - len(old)]}
        lost = before.get("rejected")
        if lost and not after.get("rejected") and not fresh & {"Retried", "Promoted"}:
            self._says("a rejection was forgotten")
        one, other = before.get("stable"), after.get("stable")
        self._last_stable = other["deployment"] if other else self._last_stable
        changed = one and other and one["deployment"] != other["deployment"]
        if changed and "Promoted" not in fresh:
            self._says("stable changed without a promotion")
        same_trial = before.get("candidate") and before.get("candidate") == after.get("candidate")
        if same_trial and not self.is_edited and after.get("step", 99) < before.get("step", 0):
            self._says(f"went from step {before['step']} back to {after['step']}")

    def _scaled(self, before: Object, after: Object) -> None:
        """Nobody whom users are sent to loses pods by the operator's hand."""
        name = after["metadata"]["name"]
        one, other = (each["spec"].get("replicas", 1) for each in (before, after))
        by_operator = before["metadata"].get("managedFields") != after["metadata"].get(
            "managedFields"
        )
        if other < one and by_operator and self._plane.share(name) > TRICKLE:
            self._says(f"{name} was scaled from {one} to {other} while users are sent to it")

    # --- the end --------------------------------------------------------------------------

    def left_behind(self) -> list[str]:
        """What should not be there when it is over."""
        found = []
        objects = self._server.everything()
        for plural, _, name in objects:
            if name == COMPARATOR or plural == "envoyextensionpolicies":
                found.append(f"{plural} {name}")
        rollout = objects.get(("modelrollouts", "shop", "ranker"))
        if rollout is not None:
            meta = rollout["metadata"]
            found += [f"finalizer {each}" for each in meta.get("finalizers", [])]
            found += [f"annotation {each}" for each in meta.get("annotations", {})]
            found += [f"idle {each['deployment']}" for each in self.status.get("idle", [])]
        route = objects.get(("httproutes", "shop", self._story.route))
        if route is not None:
            found += self._left_on(route, "the route")
            in_force = self._plane.rules.get(self._story.route, [])
            found += self._left_on({"spec": {"rules": in_force}}, "the gateway")
        return found

    def _left_on(self, route: Object, where: str) -> list[str]:
        status = self.status
        stable = status.get("stable", {}).get("service", self.stable)
        found = [f"rule {e['name']} of {where}" for e in route["spec"]["rules"] if e["name"] in OWN]
        main = next(e for e in route["spec"]["rules"] if e["name"] in {"main", "modelrollout"})
        backends = [each["name"] for each in main["backendRefs"]]
        if backends != [stable]:
            found.append(f"backends {backends} of {where}, not {stable} alone")
        if any(each["type"] == "RequestMirror" for each in main.get("filters", [])):
            found.append(f"the mirror of {where}")
        return found


def _command(rollout: Object) -> str:
    return str(rollout["metadata"].get("annotations", {}).get(api.COMMAND, ""))


def _foreign(route: Object) -> Object:
    """What is not the operator's on an attached route."""
    rules = []
    for each in route["spec"]["rules"]:
        if each.get("name") in OWN:
            continue
        if each.get("name") != "main":
            rules.append(each)
            continue
        filters = [f for f in each.get("filters", []) if f["type"] != "RequestMirror"]
        rest = {key: value for key, value in each.items() if key not in {"backendRefs", "filters"}}
        rules.append({**rest, "filters": filters})
    meta = {key: route["metadata"].get(key) for key in ("labels", "annotations", "ownerReferences")}
    return {"metadata": meta, "spec": {**route["spec"], "rules": rules}}
