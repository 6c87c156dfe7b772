"""Text that others write is shown to people: no terminal obeys it, and it stays on its line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOW, a_rollout, an_observation
from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.api.fields import MOST_BYTES, shown
from modelrollout.apply import _tell
from modelrollout.core.decide import decide
from modelrollout.core.observation import Command, Problem, Verb
from modelrollout.core.plan import Note, Severity
from modelrollout.observe import rollout_of
from modelrollout.selector import EVERYTHING

CLEAR_SCREEN = "\x1b[2J\x1b[1;1H"
RIGHT_TO_LEFT = "\u202e"
HOSTILE = f"fine\r\n{CLEAR_SCREEN}{RIGHT_TO_LEFT}all is well\x00\x07\u200b"


def texts(value: Any) -> list[str]:
    """Every text in a JSON value."""
    if isinstance(value, dict):
        return [each for key in value for each in texts(value[key])]
    if isinstance(value, list):
        return [each for item in value for each in texts(item)]
    return [value] if isinstance(value, str) else []


@given(text=st.text(st.characters(), max_size=3000))
def test_what_is_shown_is_one_printable_line_of_bounded_length(text):
    said = shown(text)

    assert said.isprintable()
    assert len(said.encode()) <= MOST_BYTES
    assert shown(said) == said


def test_ordinary_text_of_any_language_stays_as_it_is():
    for text in ("errors: candidate 3.1 % of 2,412", "Fähre nach Ærø", "推薦モデル", "🚢"):
        assert shown(text) == text


def test_a_status_says_what_a_gateway_says_without_its_control_characters():
    problem = Problem(reason=Reason.ROUTE_NOT_MANAGED, message=HOSTILE)

    status = decide(a_rollout(), an_observation(problem=problem)).status.to_dict()

    assert any("all is well" in each for each in texts(status))
    assert all(each.isprintable() for each in texts(status))


def body_with(command: str, by: str) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": "ranker", "uid": "u-1", "generation": 1}
    annotations = {api.COMMAND: command, api.COMMAND_BY: by}
    return {"metadata": {**metadata, "annotations": annotations}, "spec": {}}


def test_who_gives_a_command_is_named_without_control_characters():
    command = rollout_of(body_with("abort", f"ada{HOSTILE}")).command

    assert command is not None
    assert command.by.startswith("adafine")
    assert command.by.isprintable()


@pytest.mark.parametrize("text", [HOSTILE, "x" * 64])
def test_an_unknown_command_is_quoted_and_carried_out_once(text):
    """What is remembered of it must stay what it is compared with."""
    rollout = a_rollout()
    rollout = type(rollout)(
        **{
            **{each: getattr(rollout, each) for each in rollout.__dataclass_fields__},
            "command": Command(text=text, by="ada", verb=None),
        }
    )
    plan = decide(rollout, an_observation(NOW))
    status = api.ModelRolloutStatus.model_validate(plan.status.to_dict())

    assert [each.reason for each in plan.notes][:1] == ["CommandIgnored"]
    assert plan.notes[0].message.isprintable()
    assert status.obeyed == plan.status.obeyed


class Events:
    """The Kubernetes API, as far as Events go."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.cluster = self
        self.clock = lambda: NOW
        self.shard = EVERYTHING

    async def create(self, _resource: Any, _namespace: str, body: dict[str, Any]) -> None:
        self.created.append(body)


@pytest.mark.parametrize("text", [HOSTILE, "é" * 1024])
def test_an_event_is_one_printable_line_that_the_api_server_takes(text, caplog):
    world: Any = Events()

    with caplog.at_level("INFO"):
        note = Note(severity=Severity.NORMAL, reason="Paused", message=text)
        asyncio.run(_tell(note, a_rollout(), world))

    (event,) = world.created
    assert event["note"].isprintable()
    # The API server counts bytes.
    assert len(event["note"].encode()) <= 1024
    assert all(each.getMessage().isprintable() for each in caplog.records)


def test_verbs_are_plain_words():
    assert all(each.isascii() and each.isprintable() for each in Verb)
