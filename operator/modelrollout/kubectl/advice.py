"""
What to do next, by the reason that a rollout gives: one table.

The runbook, docs/operations.md, has a paragraph under the same word. A test holds the two and the
API's reasons together.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelrollout.api.conditions import Reason

RUNBOOK = "docs/operations.md"
ROLLOUT = "kubectl modelrollout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a person can do, in a sentence, and the commands for it."""

    sentence: str
    commands: tuple[str, ...] = ()


RETRY = f"{ROLLOUT} retry {{name}} -n {{namespace}}"
RESUME = f"{ROLLOUT} resume {{name}} -n {{namespace}}"
PROMOTE = f"{ROLLOUT} promote {{name}} -n {{namespace}}"
ABORT = f"{ROLLOUT} abort {{name}} -n {{namespace}}"
WATCH = f"{ROLLOUT} get {{name}} -n {{namespace}} --watch"
DESCRIBE = "kubectl describe deployment {candidate} -n {namespace}"
ROUTE = "kubectl describe httproute {route} -n {namespace}"
EDIT = "kubectl edit modelrollout {name} -n {namespace}"
LOGS = "kubectl logs deployment/{candidate} -n {namespace} --since=30m"
ADVICE: dict[Reason, Advice] = {
    Reason.ACCEPTED: Advice(sentence="Nothing: it goes on by itself.", commands=(WATCH,)),
    Reason.INVALID_SPEC: Advice(
        sentence="Correct the field that the message names, and apply the CRD of the operator's version. Until then nothing is judged and no command is obeyed.",
        commands=("kubectl apply --server-side -f crds/", EDIT),
    ),
    Reason.CANDIDATE_NOT_FOUND: Advice(
        sentence="Deploy {candidate}, or correct spec.candidate.deployment.",
        commands=("kubectl get deployments -n {namespace}", EDIT),
    ),
    Reason.STABLE_NOT_FOUND: Advice(
        sentence="Create {stable} again: nothing is sent to it, by a rollback neither, while it is missing. If the candidate is good and stable is gone for ever, promote.",
        commands=("kubectl get deployment {stable} -n {namespace}", PROMOTE),
    ),
    Reason.SELECTOR_OVERLAP: Advice(
        sentence="Give the two Deployments labels that differ, and their selectors both labels. A selector cannot be edited: create the new version anew.",
        commands=(
            "kubectl get deployment {stable} {candidate} -n {namespace} -o custom-columns=NAME:.metadata.name,SELECTOR:.spec.selector.matchLabels",
        ),
    ),
    Reason.SERVICE_MISMATCH: Advice(
        sentence="Correct the Service that the message names, or name another in candidate.service.",
        commands=("kubectl get service -n {namespace} -o wide",),
    ),
    Reason.ROUTE_NOT_FOUND: Advice(
        sentence="Create HTTPRoute {route}, or let the operator own one with traffic.gatewayAPI.gateway.",
        commands=("kubectl get httproute -n {namespace}", EDIT),
    ),
    Reason.ROUTE_NOT_MANAGED: Advice(
        sentence="Correct the route as the message says. If users are on a bad candidate, first take it out of the route by hand.",
        commands=("kubectl edit httproute {route} -n {namespace}",),
    ),
    Reason.PROVIDER_NOT_FOUND: Advice(
        sentence="Correct analysis.provider, or have the administrator add the Prometheus to the operator's settings.",
        commands=(EDIT,),
    ),
    Reason.ALREADY_CLAIMED: Advice(
        sentence="Another ModelRollout has this rule of the route, or scales this Deployment; the message names it. Name another rule, or delete one of the two.",
        commands=(f"{ROLLOUT} list -n {{namespace}}", EDIT),
    ),
    Reason.PREPARING: Advice(
        sentence="Wait for the candidate's pods; it begins by itself.",
        commands=("kubectl rollout status deployment/{candidate} -n {namespace}",),
    ),
    Reason.ANALYSING: Advice(sentence="Nothing: the step has just begun.", commands=(WATCH,)),
    Reason.STEP_TOO_YOUNG: Advice(
        sentence="Nothing: the step's time is not over.", commands=(WATCH,)
    ),
    Reason.PAUSED: Advice(
        sentence="Look at the evidence, then resume, promote or abort. Guardrails stay armed meanwhile.",
        commands=(RESUME, ABORT),
    ),
    Reason.AWAITING_APPROVAL: Advice(
        sentence="Look at the evidence, then approve or abort. No time ends this wait.",
        commands=(f"{ROLLOUT} approve {{name}} -n {{namespace}}", ABORT),
    ),
    Reason.CHECKING: Advice(
        sentence="Nothing yet: failing checks are repeated for strategy.checkSeconds, and no user is on the candidate.",
        commands=(WATCH,),
    ),
    Reason.SCALING: Advice(
        sentence="Wait for the candidate's pods. If their number does not change, somebody puts it back.",
        commands=("kubectl get deployment {candidate} -n {namespace} --watch",),
    ),
    Reason.CAPACITY_MISSING: Advice(
        sentence="Raise the quota, add a node, or make stable smaller; it goes on by itself when there is room.",
        commands=(
            "kubectl describe resourcequota -n {namespace}",
            "kubectl get events -n {namespace} --field-selector reason=FailedScheduling",
        ),
    ),
    Reason.BAKING: Advice(
        sentence="Nothing: stable stays ready until the bake is over. If users complain, abort.",
        commands=(WATCH, ABORT),
    ),
    Reason.WAITING_FOR_ROUTE: Advice(
        sentence="A few seconds are normal. If it lasts, ask the gateway: its controller is down, a parent is missing, or a backend does not resolve.",
        commands=(ROUTE,),
    ),
    Reason.ROLLING_BACK: Advice(
        sentence="Wait until the gateway has confirmed the route, some seconds as a rule. If it lasts, ask the gateway, and see that stable has a ready pod.",
        commands=(WATCH, ROUTE),
    ),
    Reason.ROLLED_BACK: Advice(
        sentence="Fix the model and deploy it (a changed pod template or model is a new revision), or retry if the cause was outside of it.",
        commands=(LOGS, RETRY),
    ),
    Reason.ABORTED: Advice(
        sentence="A human ended it. Ask them; retry tries the same version again.",
        commands=(RETRY,),
    ),
    Reason.PROMOTED: Advice(
        sentence="Nothing. To go back, name the earlier Deployment in spec.candidate: it returns in one move."
    ),
    Reason.RESTARTED: Advice(
        sentence="Nothing: the newer version begins when the route is at rest.", commands=(WATCH,)
    ),
    Reason.GUARDRAILS_HOLD: Advice(sentence="Nothing: it goes on by itself.", commands=(WATCH,)),
    Reason.GUARDRAIL_BREACHED: Advice(
        sentence="Believe it: users are safe. Find the cause in what changed and in the candidate's log, fix it and deploy that as a new version. Retry only if the cause was outside of the model.",
        commands=(LOGS, RETRY),
    ),
    Reason.CANDIDATE_NOT_READY: Advice(
        sentence="Find out why the candidate's pods are not ready; run at least two, so that one restart is no rollback. A changed pod template is tried by itself, the same one by retry.",
        commands=(DESCRIBE, RETRY),
    ),
    Reason.NOT_ENOUGH_EVIDENCE: Advice(
        sentence="Nothing yet: it goes on by itself when there is proof. If each rollout waits here, widen the guardrail's margin, or start with a larger weight.",
        commands=(WATCH,),
    ),
    Reason.METRICS_UNAVAILABLE: Advice(
        sentence="Bring the metrics back: nobody can tell now whether the candidate is good, and it keeps its weight until analysis.onNoData decides. If in doubt, abort: that needs no metrics.",
        commands=(ABORT, RESUME),
    ),
    Reason.CHECK_FAILED: Advice(
        sentence="No user met it. Ask the candidate as the check does, correct it or the expectation, then retry.",
        commands=("kubectl port-forward service/{candidate} 8080 -n {namespace}", RETRY),
    ),
    Reason.COMPARATOR_NOT_READY: Advice(
        sentence="Users notice nothing. The comparator's log says what it cannot read of spec.shadow; else look for its image and the quota.",
        commands=("kubectl logs deployment/{name}-comparator -n {namespace}",),
    ),
    Reason.SPLIT_MISMATCH: Advice(
        sentence="Something else shares requests out: a session cookie, hashing, a second route, retries. Nothing is promoted on that comparison; find it, then abort, promote, or change the candidate.",
        commands=(ROUTE, ABORT),
    ),
    Reason.PLACEBO_FAILED: Advice(
        sentence="One of stable's own pods is ill, or they differ by design: look at them one by one, or widen the tolerance. Until then this guardrail proves nothing.",
        commands=("kubectl get pods -n {namespace} -o wide",),
    ),
    Reason.INCONCLUSIVE: Advice(
        sentence="Nothing was shown against the candidate: there was too little traffic for the margin. Widen it, give the step more time or weight (modelrollout plan says how much), then resume or retry.",
        commands=(RESUME, RETRY),
    ),
    Reason.IN_PROGRESS: Advice(sentence="Nothing: it is not decided yet.", commands=(WATCH,)),
    Reason.NOTHING_ON_TRIAL: Advice(sentence="Nothing: no candidate is on trial."),
    Reason.IN_SYNC: Advice(sentence="Nothing: the gateway has what was intended."),
    Reason.NOT_ACCEPTED: Advice(
        sentence="Ask the gateway why it does not take up the route.", commands=(ROUTE,)
    ),
}


def advice_for(reason: str) -> Advice:
    """By a reason; an operator that is newer than the plugin may have others."""
    known = {each.value: told for each, told in ADVICE.items()}
    return known.get(reason, Advice(sentence=f"See {reason} in the operator's documents."))
