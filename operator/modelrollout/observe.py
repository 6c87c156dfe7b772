"""One Observation in: everything that a pass needs to know, asked of the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import ValidationError

from modelrollout.adapters import check_jobs
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    REPLICA_SETS,
    SERVICES,
    Object,
    selector_of,
)
from modelrollout.api import fields
from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.claims import claimed
from modelrollout.core import facts
from modelrollout.core.observation import (
    CheckResult,
    Command,
    Comparator,
    Found,
    MissingService,
    Observation,
    Problem,
    Rollout,
    Route,
    Verb,
    Wanted,
    Workload,
)
from modelrollout.core.plan import comparator_of, traffic_of
from modelrollout.core.revision import revision_of, same_model
from modelrollout.drafts import Sight
from modelrollout.errors import NotFound, Refused
from modelrollout.metrics import with_metrics
from modelrollout.replicas import with_replicas
from modelrollout.world import World

MAX_RECIPIENTS = 16
MOST_BYTES_OF_A_NAME = 256
"""Of who gives a command."""


def rollout_of(
    body: Object,
    newest: api.ModelRolloutStatus | None = None,
    before: Rollout | None = None,
) -> Rollout:
    """The object as read, with a newer status if there is one, and the spec from `before` if it is the same."""
    meta = body["metadata"]
    annotations = meta.get("annotations") or {}
    if before is not None and (before.uid, before.generation) == (meta["uid"], meta["generation"]):
        spec, error = before.spec, before.spec_error
    else:
        spec, error = _spec_of(body)
    try:
        status = newest or api.ModelRolloutStatus.model_validate(body.get("status") or {})
    except ValidationError as invalid:
        # Nobody but an operator writes status. To go on from an empty one would forget who is
        # stable: better that nothing moves until an operator that understands it is back.
        name = f"{meta['namespace']}/{meta['name']}"
        sentence = f"the status of {name} was written by another version of the operator"
        raise Refused(f"{sentence}: {invalid.errors()[0]['msg']}") from invalid
    return Rollout(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta["generation"],
        spec=spec,
        spec_error=error,
        status=status,
        has_finalizer=api.FINALIZER in (meta.get("finalizers") or []),
        is_deleting=bool(meta.get("deletionTimestamp")),
        command=_command(annotations),
        recipients=_recipients(annotations),
    )


def _spec_of(body: Object) -> tuple[api.ModelRolloutSpec | None, str]:
    """What cannot be parsed becomes a sentence, never an exception."""
    try:
        return api.ModelRolloutSpec.model_validate(body.get("spec", {})), ""
    except ValidationError as invalid:
        return None, api.sentence_of(invalid)


def _command(annotations: dict[str, str]) -> Command | None:
    text = annotations.get(api.COMMAND)
    if text is None:
        return None
    verb = Verb(text) if text in set(Verb) else None
    by = fields.shown(annotations.get(api.COMMAND_BY, ""), MOST_BYTES_OF_A_NAME)
    return Command(text=text[:64], by=by, verb=verb)


def _recipients(annotations: dict[str, str]) -> tuple[str, ...]:
    names = (each.strip()[:64] for each in annotations.get(api.NOTIFY, "").split(","))
    return tuple(dict.fromkeys(each for each in names if each))[:MAX_RECIPIENTS]


async def observe(rollout: Rollout, world: World) -> Observation:
    """Ask the cluster and the route, and the metrics if a step is being judged."""
    now = world.clock()
    if rollout.spec is None:
        return Observation(now=now, route=Route(in_sync=False, accepted=False))
    known = facts.with_first_stable(rollout.status, rollout.spec)
    traffic = traffic_of(known, rollout.spec, rollout.name)
    assert traffic is not None
    key = rollout.namespace, rollout.name
    before = world.drafts.sight_of(key)
    view = await world.router.observe(rollout, traffic, before.view)
    if rollout.is_deleting:
        return Observation(now=now, route=view.route)
    route = view.route
    if route.problem is None and (claim := await claimed(rollout, known, route, world)):
        # A problem of the route: nothing is written to what is another's.
        route = replace(route, problem=claim)
    stable, candidate = await world.together(
        _find(_stable(rollout.spec, known), rollout, world, before.stable),
        _find(_candidate(rollout.spec), rollout, world, before.candidate),
    )
    world.drafts.saw(key, Sight(rollout=rollout, view=view, stable=stable, candidate=candidate))
    comparator = Comparator()
    if rollout.spec.shadow is not None or known.mirror:
        comparator = await world.comparators.observe(rollout, known)
    problem = (
        _problem(rollout.spec, stable, candidate, world)
        or route.problem
        or _comparator_problem(rollout, comparator)
    )
    seen = Observation(
        now=now,
        problem=problem,
        missing_services=tuple(
            each.missing_service for each in (stable, candidate) if each.missing_service
        ),
        stable=stable.workload,
        candidate=candidate.workload,
        route=route,
        comparator=comparator,
    )
    seen = await with_replicas(rollout, known, seen, world)
    if checks := await _checks(rollout, known, seen, world):
        seen = replace(seen, checks=checks)
    return await with_metrics(rollout, known, seen, view.split, world)


def _comparator_problem(rollout: Rollout, found: Comparator) -> Problem | None:
    if found.is_forbidden:
        message = (
            "this operator runs no comparators (shadow.enabled of its chart is false): leave the "
            "mirror steps and spec.shadow out, or ask its administrator"
        )
        return Problem(reason=Reason.COMPARATOR_NOT_READY, message=message)
    if not found.is_taken:
        return None
    name = comparator_of(rollout.name)
    message = (
        f"{name} is the comparator's name, and a Deployment, Service or ConfigMap of somebody "
        "else's has it: rename it, or the ModelRollout"
    )
    return Problem(reason=Reason.COMPARATOR_NOT_READY, message=message)


async def _checks(
    rollout: Rollout, known: api.ModelRolloutStatus, seen: Observation, world: World
) -> dict[str, CheckResult]:
    """The checks that have not passed yet, when all is ready for the first step."""
    candidate = seen.candidate
    assert rollout.spec is not None
    if candidate is None or known.candidate != candidate.version or known.is_revert:
        return {}
    is_due = known.step is None and known.pause is None and not rollout.spec.paused
    if not (is_due and candidate.is_ready and seen.route.is_settled) or seen.problem is not None:
        return {}
    passed = {each.name for each in known.checks if each.passed}
    due = [each for each in rollout.spec.strategy.checks if each.name not in passed]
    service, port = candidate.version.service, rollout.spec.port
    requests = [(each.name, each.http) for each in due if each.http is not None]
    results = await world.together(
        *(world.checker.run(http, rollout.namespace, service, port) for _, http in requests)
    )
    found = {name: result for (name, _), result in zip(requests, results, strict=True)}
    # A Job's name is in status before the Job is made, so that it is made once.
    jobs = {each.name: each.job for each in known.checks if each.job}
    for each in due:
        if each.job is not None and each.name in jobs:
            name = jobs[each.name]
            found[each.name] = await check_jobs.run(
                each.job, name, rollout, candidate, world.cluster
            )
    return found


# --- the two versions ---------------------------------------------------------------------


def _candidate(spec: api.ModelRolloutSpec) -> Wanted:
    model = spec.candidate.model
    return Wanted(
        role="candidate",
        deployment=spec.candidate.deployment,
        service=api.service_of(spec.candidate),
        model_version=model.version if model else None,
        model=model,
        known_revision=None,
    )


def _stable(spec: api.ModelRolloutSpec, known: api.ModelRolloutStatus) -> Wanted:
    stable = known.stable
    assert stable is not None
    if stable.deployment == spec.candidate.deployment:
        return _candidate(spec)
    is_given = stable.deployment == spec.stable.deployment and not stable.revision
    return Wanted(
        role="stable",
        deployment=stable.deployment,
        service=stable.service,
        model_version=stable.model_version,
        model=spec.stable.model if is_given else None,
        known_revision=stable.revision or None,
    )


async def _find(wanted: Wanted, rollout: Rollout, world: World, before: Found | None) -> Found:
    """What there is of a version; what there was `before`, if nothing has been written since."""
    assert rollout.spec is not None
    try:
        deployment = await world.cluster.get(DEPLOYMENTS, rollout.namespace, wanted.deployment)
    except NotFound:
        is_candidate = wanted.role == "candidate"
        reason = Reason.CANDIDATE_NOT_FOUND if is_candidate else Reason.STABLE_NOT_FOUND
        message = f"Deployment {wanted.deployment} ({wanted.role}) does not exist: create it"
        return Found(wanted=wanted, problem=Problem(reason=reason, message=message), labels={})
    labels = deployment["spec"]["template"]["metadata"].get("labels") or {}
    selector = deployment["spec"]["selector"]
    by_name = f"kubernetes.io/service-name={wanted.service}"
    replica_sets, slices, services = await world.together(
        world.cluster.list(REPLICA_SETS, rollout.namespace, selector_of(deployment)),
        world.cluster.list(ENDPOINT_SLICES, rollout.namespace, by_name),
        _services(rollout.namespace, wanted.service, world),
    )
    objects = (deployment, *replica_sets, *slices, *services)
    versions = [each["metadata"]["resourceVersion"] for each in objects]
    drawn_from = (wanted, rollout.spec.port, *versions)
    if before is not None and before.drawn_from == drawn_from:
        return before
    service = services[0] if services else None
    missing = None if service else _missing_service(deployment, wanted)
    problem = _service_problem(wanted, service, missing, labels, rollout)
    by_service = (service or {}).get("spec", {}).get("selector") or {}
    return Found(
        wanted=wanted,
        workload=_workload(deployment, wanted, replica_sets, slices),
        problem=problem,
        labels=labels,
        selectors=tuple(each for each in (selector.get("matchLabels"), by_service) if each),
        missing_service=missing,
        drawn_from=drawn_from,
    )


def _workload(
    deployment: Object, wanted: Wanted, replica_sets: list[Object], slices: list[Object]
) -> Workload:
    status = deployment.get("status", {})
    is_current = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    template = deployment["spec"]["template"]
    if wanted.known_revision is not None:
        revision = same_model(template, wanted.known_revision)
    else:
        revision = revision_of(template, wanted.model)
    counted = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    return Workload(
        version=api.VersionStatus(
            deployment=wanted.deployment,
            service=wanted.service,
            revision=revision,
            model_version=wanted.model_version,
        ),
        desired=deployment["spec"].get("replicas", 1),
        available=counted if is_current else 0,
        endpoints=_ready_endpoints(slices),
        replica_sets=_names_of_owned(replica_sets, deployment["metadata"]["uid"]),
        images=tuple(each.get("image", "") for each in template["spec"].get("containers") or ()),
        stuck=_stuck(deployment) if is_current else "",
    )


def _stuck(deployment: Object) -> str:
    for each in deployment.get("status", {}).get("conditions", []):
        if each["type"] == "Progressing" and each.get("reason") == "ProgressDeadlineExceeded":
            name = deployment["metadata"]["name"]
            return f"Deployment {name} does not become ready: {each.get('message', '')}"
    return ""


def _names_of_owned(replica_sets: list[Object], uid: str) -> tuple[str, ...]:
    owners = [
        (each["metadata"]["name"], each["metadata"].get("ownerReferences", []))
        for each in replica_sets
    ]
    return tuple(sorted(name for name, some in owners if uid in [each["uid"] for each in some]))


def _ready_endpoints(slices: list[Object]) -> int:
    return sum(
        endpoint.get("conditions", {}).get("ready", True)
        for each in slices
        for endpoint in each.get("endpoints") or []
    )


async def _services(namespace: str, name: str, world: World) -> list[Object]:
    """The one of that name, if it exists."""
    try:
        return [await world.cluster.get(SERVICES, namespace, name)]
    except NotFound:
        return []


def _missing_service(deployment: Object, wanted: Wanted) -> MissingService | None:
    """None when the Deployment's selector cannot be a Service's: then the user must make one."""
    selector = deployment["spec"]["selector"]
    if selector.get("matchExpressions") or not selector.get("matchLabels"):
        return None
    return MissingService(
        name=wanted.service,
        deployment=wanted.deployment,
        deployment_uid=deployment["metadata"]["uid"],
        selector=tuple(sorted(selector["matchLabels"].items())),
    )


def _service_problem(
    wanted: Wanted,
    service: Object | None,
    missing: MissingService | None,
    labels: Mapping[str, str],
    rollout: Rollout,
) -> Problem | None:
    name, role = wanted.service, wanted.role
    assert rollout.spec is not None
    message = ""
    if service is None:
        if missing is None:
            message = (
                f"Service {name} ({role}) does not exist and cannot be made from the selector of "
                f"Deployment {wanted.deployment}: create it"
            )
    elif not _selects(service["spec"].get("selector") or {}, labels):
        message = (
            f"Service {name} ({role}) does not select the pods of Deployment "
            f"{wanted.deployment}: correct its selector, or name another one in {role}.service"
        )
    elif rollout.spec.port not in [each["port"] for each in service["spec"].get("ports", [])]:
        message = f"Service {name} ({role}) has no port {rollout.spec.port}: correct spec.port"
    return Problem(reason=Reason.SERVICE_MISMATCH, message=message) if message else None


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def _problem(
    spec: api.ModelRolloutSpec, stable: Found, candidate: Found, world: World
) -> Problem | None:
    if spec.analysis.provider not in world.metrics:
        known = ", ".join(sorted(world.metrics))
        message = (
            f"analysis.provider {spec.analysis.provider!r} is not configured; there is {known}"
        )
        return Problem(reason=Reason.PROVIDER_NOT_FOUND, message=message)
    return candidate.problem or stable.problem or _overlap(stable, candidate)


def _overlap(stable: Found, candidate: Found) -> Problem | None:
    """Pods that both versions select would answer for the wrong one."""
    if stable.wanted.deployment == candidate.wanted.deployment:
        return None
    for one, other in ((stable, candidate), (candidate, stable)):
        if any(_selects(each, other.labels) for each in one.selectors):
            message = (
                f"the selector of {one.wanted.role} ({one.wanted.deployment}) also selects the "
                f"pods of {other.wanted.deployment}: give the versions labels that differ"
            )
            return Problem(reason=Reason.SELECTOR_OVERLAP, message=message)
    return None
