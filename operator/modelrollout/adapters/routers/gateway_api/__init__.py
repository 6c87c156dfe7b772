"""
Traffic through a Gateway API HTTPRoute.

The router reads the route and makes one write at a time; what to write is pure: the route as it
is goes in, the route after the next write comes out. In an attached route only the backendRefs of
the two versions in one rule, a mirror in that rule and rules of our own are ours, and everything
else survives byte for byte; the write is a JSON Patch that first tests that nobody changed what
was read. HTTPRoute rules are an atomic list: server-side apply cannot own a part of somebody
else's. A managed route is ours as a whole and is applied as a whole.

A backend that leaves the route, or its place in the list, takes an Envoy cluster with it, and for
some milliseconds the proxy may still send requests there: they fail with 500. So the way from one
route to the next is a few writes, and nothing comes or goes while it carries traffic: neither a
backend in a rule (`core/shares.py`), nor a rule (`own_rules.py`).

`router` > `obstacles` > `gateways`, `route`, `precedence` > `own_rules` > `backends` > `cookies` > `buckets`, `mirror`
"""

from modelrollout.adapters.routers.gateway_api.route import managed
from modelrollout.adapters.routers.gateway_api.router import GatewayAPIRouter, View

__all__ = ["GatewayAPIRouter", "View", "managed"]
