"""How users' requests reach the two versions, as a user writes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelrollout.api.fields import (
    DAY_SECONDS,
    ApiModel,
    HeaderName,
    HeaderValue,
    Hostname,
    LabelName,
    MetricName,
    Name,
    Rule,
    atomic,
    given,
)
from modelrollout.api.guardrails import LabelMatcher


class GatewayReference(ApiModel):
    """A Gateway to attach the managed route to."""

    name: Name
    """name is the Gateway's name."""
    namespace: Name | None = None
    """namespace is the Gateway's namespace; it defaults to the rollout's. The Gateway decides through allowedRoutes whom it accepts."""
    section_name: Name | None = None
    """sectionName selects one listener of the Gateway."""


class DeletionPolicy(StrEnum):
    """What becomes of a managed route when the ModelRollout is deleted."""

    KEEP = "Keep"
    DELETE = "Delete"


class GatewayAPI(ApiModel):
    """Traffic through a Gateway API HTTPRoute: the user's (route) or the operator's (gateway)."""

    rules = (
        Rule(
            "has(self.route) != has(self.gateway)",
            "give exactly one of route (attach to your HTTPRoute) and gateway (the operator owns one)",
            lambda it: given(it.route, it.gateway) == 1,
        ),
        Rule(
            "!has(self.rule) || has(self.route)",
            "rule names a rule of your own HTTPRoute: give route as well",
            lambda it: it.rule is None or it.route is not None,
        ),
        Rule(
            "!has(self.hostnames) || has(self.gateway)",
            "hostnames belong to a route that the operator owns: give gateway, not route",
            lambda it: it.hostnames is None or it.gateway is not None,
        ),
        Rule(
            "!has(self.deletionPolicy) || has(self.gateway)",
            "deletionPolicy belongs to a route that the operator owns: give gateway, not route",
            lambda it: it.deletion_policy is None or it.gateway is not None,
        ),
    )
    route: Name | None = None
    """route names an existing HTTPRoute in the rollout's namespace. Only the backendRefs of the two versions in one of its rules are edited."""
    rule: Name | None = None
    """rule is the name of the rule to edit. It may be left out when the HTTPRoute has a single rule."""
    gateway: GatewayReference | None = None
    """gateway makes the operator own an HTTPRoute of the rollout's name, attached to this Gateway."""
    hostnames: (
        Annotated[
            tuple[Hostname, ...],
            atomic(16),
        ]
        | None
    ) = None
    """hostnames of the route that the operator owns."""
    deletion_policy: DeletionPolicy | None = None
    """deletionPolicy says whether the route that the operator owns stays (Keep, the default) or goes (Delete) with the ModelRollout."""


class UserCounter(ApiModel):
    """A counter of users, by version."""

    metric: MetricName
    """metric is the counter's full name. It grows by 1 when a user is first given a version in this test: an exposure, in the words of A/B tests."""
    matchers: Annotated[tuple[LabelMatcher, ...], atomic(16)] = ()
    """matchers narrow the series down, for example to this test, and to users who are not in traffic.cohort."""
    version_label: LabelName | None = None
    """versionLabel is the label whose value tells the versions apart: the model's version where it is given, else the Deployment's name. Without it, samples belong to a version by their pod label."""
    repeat_seconds: Annotated[int, Field(ge=1, le=30 * DAY_SECONDS)] | None = None
    """repeatSeconds is after how long the same user is counted again, for a counter that does so (86400: users of a day). The first so many seconds of a step tell nothing of the split: stable's users were counted before."""


class StickyBy(StrEnum):
    """How the gateway tells users apart."""

    HASH = "Hash"
    COOKIE = "Cookie"


class Sticky(ApiModel):
    """What a user is known by: the same user always gets the same version."""

    rules = (
        Rule(
            "(has(self.by) && self.by == 'Cookie') || has(self.header) != has(self.cookie)",
            "a user is known by exactly one of header and cookie, unless by is Cookie",
            lambda it: it.by is StickyBy.COOKIE or given(it.header, it.cookie) == 1,
        ),
        Rule(
            "!(has(self.by) && self.by == 'Cookie') || !(has(self.header) || has(self.cookie))",
            "with by: Cookie the gateway gives each user a cookie of the operator's: leave out header and cookie",
            lambda it: it.by is not StickyBy.COOKIE or given(it.header, it.cookie) == 0,
        ),
    )
    by: StickyBy | None = None
    """by is how the gateway tells users apart. Hash: by a hash of the id in header or cookie; needs Envoy Gateway. Cookie: by a cookie that it sets at the first visit; needs a gateway that matches headers by regular expressions and sets response headers by backend, which the user vouches for. Without it, Envoy Gateway takes Hash, and for users who are known by a cookie another gateway that is known to be able takes Cookie."""
    header: HeaderName | None = None
    """header whose value is the user's id."""
    cookie: HeaderName | None = None
    """cookie whose value is the user's id."""
    users: UserCounter | None = None
    """users is a counter of users, with which it is checked that they are shared out by the weight. Requests cannot tell: users send different numbers of them."""


class CohortMember(ApiModel):
    """Users who are on the candidate at every weight step."""

    rules = (
        Rule(
            "has(self.header) != has(self.cookie)",
            "a cohort's users are known by exactly one of header and cookie",
            lambda it: given(it.header, it.cookie) == 1,
        ),
    )
    header: HeaderName | None = None
    """header that their requests have."""
    cookie: HeaderName | None = None
    """cookie that their requests have."""
    value: HeaderValue
    """value of the header or cookie."""


class Traffic(ApiModel):
    """How users' requests reach the two versions."""

    gateway_api: Annotated[GatewayAPI, Field(alias="gatewayAPI")]
    """gatewayAPI moves traffic through a Gateway API HTTPRoute."""
    sticky: Sticky | None = None
    """sticky keeps each user on one version while the weight stays, and moves the fewest when it grows. Requests that name no user are shared out one by one."""
    cohort: Annotated[tuple[CohortMember, ...], atomic(8)] = ()
    """cohort lists users who get the candidate at every weight step. They are not random, so they are no part of the comparison."""
