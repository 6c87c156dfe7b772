"""How many pods the versions have, where a user leaves that to the operator."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from modelrollout.api.fields import DAY_SECONDS, ApiModel


class Scaling(ApiModel):
    """The candidate is scaled up before it gets requests; a version that gets none any more is scaled to 0."""

    min_replicas: Annotated[int, Field(ge=1, le=10_000)] = 1
    """minReplicas is the candidate's fewest pods on trial. It has more in proportion to its share of requests, up to as many as stable had when the trial began."""
    warm_seconds: Annotated[int, Field(ge=0, le=30 * DAY_SECONDS)] = 3600
    """warmSeconds is how long a version keeps its pods after another one has replaced it, so that going back is immediate. Then it is scaled down by halves, a minute apart."""
    drain_seconds: Annotated[int, Field(ge=0, le=DAY_SECONDS)] = 30
    """drainSeconds is how long a candidate that lost, and any other version, keeps its pods after the gateway has accepted the route without it, for the requests that are still under way."""
