"""
Pure: what puts each user into one of a hundred buckets, on Envoy Gateway.

An EnvoyExtensionPolicy with a few lines of Lua hashes the user's id, writes the bucket into a
request header (over anything that the client sent) and so has the proxy look for a route anew.
Buckets below the weight get the candidate: when it grows, nobody but the new buckets moves.

The hash is salted, so that it is not always the same users who try what is new. It is made of
multiplications modulo a prime alone: the script is also run by Envoy Gateway, which checks it in
a Lua that has no bit operations.

Envoy Gateway answers 500 on every rule that a Lua policy names while Lua is not enabled, which it
is not by default. So the policy first names only a rule of ours that nobody reaches, and the
user's rule only when that was accepted.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelrollout.adapters.cluster import EXTENSION_POLICIES, Object
from modelrollout.api import v1alpha1 as api

HEADER = "x-modelrollout-bucket"
ANY = "[0-9][0-9]"
PRIME = 2**31 - 1
KIND = "EnvoyExtensionPolicy"

HASH = """\
local PRIME, SALT, PEPPER = 2147483647, @SALT@, @PEPPER@
local function times(a, b)
  return ((math.floor(a / 32768) * b) % PRIME * 32768 + (a % 32768) * b) % PRIME
end
local function mixed(x)
  local square = times(x, x)
  return times(times(square, square), x)
end
local function bucket_of(user)
  local hash = SALT
  for place = 1, #user do
    hash = (hash * 16807 + string.byte(user, place) + 1) % PRIME
  end
  return mixed((mixed(hash) + PEPPER) % PRIME) % 100
end
"""
BY_HEADER = """\
local function user_of(headers)
  return headers:get(@NAME@)
end
"""
BY_COOKIE = """\
local function user_of(headers)
  for name, value in string.gmatch(headers:get("cookie") or "", "([^=;%s]+)=([^;]*)") do
    if name == @NAME@ then
      return (string.gsub(value, "%s+$", ""))
    end
  end
end
"""
ON_REQUEST = """\
function envoy_on_request(handle)
  local headers = handle:headers()
  local user = user_of(headers)
  local bucket = math.random(0, 99)
  if user and user ~= "" then
    bucket = bucket_of(user)
  end
  headers:replace(@HEADER@, string.format("%02d", bucket))
end
"""


class Stage(StrEnum):
    """How far the gateway is with the policy."""

    UNNEEDED = "Unneeded"
    PENDING = "Pending"
    REFUSED = "Refused"
    IN_FORCE = "InForce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the gateway says about a policy."""

    stage: Stage
    message: str = ""


def below(weight: int) -> str:
    """A regular expression of the buckets below a weight from 1 to 100."""
    tens, units = divmod(weight, 10)
    parts = [f"[0-{tens - 1}][0-9]"] if tens else []
    parts += [f"{tens}[0-{units - 1}]"] if units else []
    return "|".join(parts)


def script(sticky: api.Sticky, salt: str) -> str:
    """The Lua that hashes; names are written as strings that need no escape in Lua."""
    digest = hashlib.sha256(salt.encode()).digest()
    values = {
        "@SALT@": str(int.from_bytes(digest[:8]) % PRIME),
        "@PEPPER@": str(int.from_bytes(digest[8:16]) % PRIME),
        "@NAME@": json.dumps(sticky.header or sticky.cookie),
        "@HEADER@": json.dumps(HEADER),
    }
    text = HASH + (BY_HEADER if sticky.header else BY_COOKIE) + ON_REQUEST
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def policy_name(rollout: str) -> str:
    """The name of a rollout's policy."""
    return f"{rollout}-sticky"


def policy(
    rollout: str, namespace: str, owner: Object, route: str, rules: list[str | None], lua: str
) -> Object:
    """The policy on these rules of the route; None stands for all of them."""
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route}
    return {
        "apiVersion": f"{EXTENSION_POLICIES.group}/{EXTENSION_POLICIES.version}",
        "kind": KIND,
        "metadata": {
            "name": policy_name(rollout),
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "modelrollout",
                f"{api.GROUP}/rollout": rollout,
            },
            "ownerReferences": [owner],
        },
        "spec": {
            "targetRefs": [{**target, "sectionName": each} if each else target for each in rules],
            # A policy of the Gateway's would silently be replaced otherwise.
            "mergeType": "StrategicMerge",
            "lua": [{"type": "Inline", "inline": lua}],
        },
    }


def own_policy(policies: list[Object], rollout: str) -> Object | None:
    """The rollout's policy, by name and label."""
    for each in policies:
        meta = each["metadata"]
        if meta["name"] == policy_name(rollout):
            is_ours = meta.get("labels", {}).get(f"{api.GROUP}/rollout") == rollout
            return each if is_ours else None
    return None


def answer(found: Object, parents: int) -> Answer:
    """What every gateway, the parents of the route, says about the policy as it is now."""
    generation = found["metadata"].get("generation", 0)
    ancestors = found.get("status", {}).get("ancestors") or []
    conditions = [
        condition
        for ancestor in ancestors
        for condition in ancestor.get("conditions") or []
        if condition.get("observedGeneration", 0) >= generation
    ]
    merged = [each for each in conditions if each["type"] == "Merged" and _is_true(each)]
    if merged:
        return Answer(stage=Stage.REFUSED, message=f"{_said(merged[0])}: it would replace its Lua")
    accepted = [each for each in conditions if each["type"] == "Accepted"]
    refused = [each for each in accepted if not _is_true(each)]
    if refused:
        return Answer(stage=Stage.REFUSED, message=_said(refused[0]))
    if len(ancestors) < parents:
        return Answer(stage=Stage.PENDING)
    is_whole = len(accepted) == len(ancestors)
    return Answer(stage=Stage.IN_FORCE if is_whole else Stage.PENDING)


def _is_true(condition: Object) -> bool:
    return bool(condition["status"] == "True")


def _said(condition: Object) -> str:
    return f"{condition.get('reason', '')}: {condition.get('message', '')}".rstrip(".")


def refusal(rollout: str, said: str) -> str:
    """The sentence for a policy that the gateway does not take."""
    return (
        f"the gateway refuses EnvoyExtensionPolicy {policy_name(rollout)}, which traffic.sticky "
        f"needs ({said}): enable Lua (extensionApis.enableLua of Envoy Gateway), give "
        "traffic.sticky.by: Cookie, or leave out traffic.sticky"
    )


def waiting(rollout: str) -> str:
    """The sentence for a policy that a gateway has not answered, or never will."""
    return (
        f"waits until every gateway of the route has taken up EnvoyExtensionPolicy "
        f"{policy_name(rollout)}, which traffic.sticky needs; only Envoy Gateway does"
    )


def targets(found: Object, route: Object, rule: str | None) -> bool:
    """Whether a policy is about one rule of the route by its name, or (None) about all of it."""
    spec: dict[str, Any] = found.get("spec", {})
    refs = [*spec.get("targetRefs", []), *([spec["targetRef"]] if "targetRef" in spec else [])]
    name = route["metadata"]["name"]
    about = [each for each in refs if each.get("kind") == "HTTPRoute" and each["name"] == name]
    if any(each.get("sectionName") == rule for each in about):
        return True
    selectors = spec.get("targetSelectors", []) if rule is None else []
    return any(_selects(each, route) for each in selectors)


def _selects(selector: Object, route: Object) -> bool:
    """Expressions are taken to select it: better one refusal too many than a policy displaced."""
    labels = route["metadata"].get("labels", {})
    is_kind = selector.get("kind") == "HTTPRoute"
    return is_kind and selector.get("matchLabels", {}).items() <= labels.items()
