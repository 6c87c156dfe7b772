"""
One program that answers for the gateway and the model servers of a whole fleet.

Counters are functions of time, so that it keeps nothing and both versions are equal.
`python -m bench.scale.exporter PORT`; `/fleet?size=N` says how large the fleet is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from bench.scale.fleet import Member, busy, replica_set

RATE = 20.0
"""Requests per second of a version."""
PAST_SECONDS = 3600.0
ERRORS = 0.01
PODS = 2
BOUNDS = (
    "0.5 1 5 10 25 50 100 250 500 1000 2500 5000 10000 30000 60000 300000 600000 1800000 3600000"
)
"""Milliseconds, as Envoy has them."""
SHARES = (0, 0, 0.05, 0.2, 0.5, 0.8, 0.95, 0.98, 0.99, *(1.0 for _ in range(11)))
BUCKETS = tuple(zip([*BOUNDS.split(), "+Inf"], SHARES, strict=True))
XX = "envoy_cluster_upstream_rq_xx"
TIME = "envoy_cluster_upstream_rq_time"


def page(size: int, requests: float) -> str:
    """What is scraped when each version has had so many requests."""
    return "\n".join(line for each in busy(size) for line in _lines(each, requests)) + "\n"


def _lines(member: Member, requests: float) -> Iterator[str]:
    for place, version in enumerate(member.versions):
        # Not all fleets' counters are equal.
        count = int(requests + member.number % 97)
        errors = int(count * ERRORS)
        cluster = f"httproute/{member.namespace}/{member.name}/rule/0/backend/{place}"
        labels = f'envoy_cluster_name="{cluster}"'
        yield f'{XX}{{{labels},envoy_response_code_class="2"}} {count - errors}'
        yield f'{XX}{{{labels},envoy_response_code_class="5"}} {errors}'
        for bound, share in BUCKETS:
            yield f'{TIME}_bucket{{{labels},le="{bound}"}} {int(count * share)}'
        yield f"{TIME}_count{{{labels}}} {count}"
        for pod in range(PODS):
            judged = count // (2 * PODS)
            labels_of_pod = (
                f'namespace="{member.namespace}",version="{version}",'
                f'pod="{replica_set(version)}-abcd{pod}"'
            )
            yield f"predictions_judged_total{{{labels_of_pod}}} {judged}"
            yield f"predictions_wrong_total{{{labels_of_pod}}} {judged // 50}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    size = 0
    start = time.time() - PAST_SECONDS

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/fleet":
            _Handler.size = int(parse_qs(url.query)["size"][0])
        body = page(_Handler.size, RATE * (time.time() - self.start)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
