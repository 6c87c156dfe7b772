"""Who is told of a rollout's decisions, from its annotation to the web hooks of the administrator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from modelrollout.adapters.cluster import ROLLOUTS
from modelrollout.core.audit import Record
from modelrollout.observe import rollout_of
from modelrollout.simulation.rollout import Decision, Simulation
from simulation.worlds import a_manifest, a_world


@dataclass
class Listener:
    """Remembers what it was told."""

    name: str
    namespaces: tuple[str, ...] = ("shop",)
    records: list[Record] = field(default_factory=list)

    def is_open_to(self, namespace):
        return namespace in self.namespaces

    def tell(self, record):
        self.records.append(record)


def rolled_back(listeners, **annotations):
    """A rollout of a bad candidate with these annotations, to its end."""
    simulation = Simulation(a_manifest(), a_world(candidate={"errorRate": 0.05}), 1)
    metadata = simulation.rollout["metadata"] | {"annotations": annotations}
    simulation.store.put(ROLLOUTS, simulation.rollout | {"metadata": metadata})
    simulation._world = replace(simulation._world, listeners=listeners)  # noqa: SLF001  # its own
    assert simulation.run().decision is Decision.ROLLED_BACK
    return simulation


def warnings(simulation):
    events = simulation.store.events
    return [each["note"] for each in events if each["reason"] == "WebhookUnknown"]


@pytest.mark.parametrize(
    ("annotation", "recipients"),
    [
        ("team", ("team",)),
        (" team, audit ,,team", ("team", "audit")),
        ("", ()),
        (",".join(f"n{each}" for each in range(40)), tuple(f"n{each}" for each in range(16))),
        ("n" * 100, ("n" * 64,)),
    ],
)
def test_an_annotation_names_web_hooks(annotation, recipients):
    body = Simulation(a_manifest(), a_world(), 1).rollout
    metadata = body["metadata"] | {"annotations": {"modelrollout.dev/notify": annotation}}

    assert rollout_of(body | {"metadata": metadata}).recipients == recipients


def test_a_name_that_the_administrator_does_not_know_is_told_and_changes_no_decision():
    listeners = (team, _) = (Listener("team"), Listener("other", ("bank",)))
    plain = rolled_back(())
    named = rolled_back(listeners, **{"modelrollout.dev/notify": "team, taem, other"})

    (said,) = set(warnings(named))
    assert "names other, taem, but of the administrator's web hooks there are team;" in said
    assert len(team.records) >= 3
    assert {each.recipients for each in team.records} == {("team", "taem", "other")}
    assert named.status == plain.status


def test_where_there_are_no_web_hooks_it_is_said():
    (said,) = set(warnings(rolled_back((), **{"modelrollout.dev/notify": "team"})))

    assert "there is none for this namespace" in said
