"""docs/faults.md: one part by `make chaos`, one by `make chaos-api`; each keeps the other's."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
REAL = """\
## Sequences on a real API server

State-based testing, as Acto and Sieve do it: to a rollout of any strategy happen nine things drawn
by number: edits of its spec, other revisions, commands, deletion, pods that die, errors,
operators killed at any time, a second and a third one, one that reads what was three seconds ago
(stale state), watches that tell nothing (unobserved state), an API server, a Prometheus or a gateway
that is away. Then all is well again, and the rollout must come to its end with nothing left behind;
meanwhile the observer holds the rules of above. Every write of the ModelRollout goes by the
operator's own client to a kube-apiserver with etcd, with schema, rules, conflicts and finalizers;
Deployments, routes, pods, users and Prometheus are simulated, and the clock is virtual. `make chaos-api
FIRST=N` runs more, from number N on. Of the sequences counted above none has a part in this table.

There, too, etcd is killed in the middle of a write of status and started again, and the CRD is
upgraded under a rollout (`tests/chaos/test_chaos.py`): both go on to their end with what status had.
The comparator compares on a full disk: it writes to no file (`tests/contract/test_comparator.py`).

| sequences | how many | answers of the API server | took | broke a rule |
|---|---|---|---|---|
"""


def with_table(page: str, table: str) -> str:
    """The page with another first part."""
    _, _, rows = page.partition(REAL)
    return f"{table}\n{REAL}{rows}"


def with_row(page: str, row: str) -> str:
    """The page with what a run on a real API server came to."""
    table, _, rows = page.partition(REAL)
    return f"{table.rstrip()}\n\n{REAL}{rows}{row}\n"
