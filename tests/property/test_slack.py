"""Whatever the cluster's users wrote, a message for people stays short, in its lines, and mentions nobody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelrollout.adapters.slack import ADVICE, MAX_GUARDRAILS, message
from modelrollout.core.audit import Record

TEXT = st.text(max_size=1500) | st.text(alphabet="<>&@!|*`\n\r\u202e#", max_size=1500)
GUARDRAILS = st.lists(
    st.fixed_dictionaries(
        {"name": st.from_regex(r"\A[a-z]{1,20}\Z"), "verdict": st.just("Fail"), "message": TEXT}
    ),
    max_size=30,
)


@given(
    decision=st.sampled_from([*ADVICE, "Unheard"]),
    why=TEXT,
    guardrails=GUARDRAILS,
    number=st.integers(1, 20),
)
def test_a_message_is_short_and_safe(decision, why, guardrails, number):
    body = {
        "message": why,
        "step": {"number": number, "of": 20},
        "weight": {"before": 5, "after": 0},
        "evidence": {"guardrails": guardrails},
    }
    record = Record(
        id="u-1/0", time="", decision=decision, namespace="shop", rollout="ranker", body=body
    )

    text = message(record)["text"]

    assert len(text) <= 3900
    assert not {"<", ">"} & set(text)
    assert all("@" not in part or part.endswith("@") for part in text.split("\u200b"))
    assert len(text.split("\n")) <= 3 + MAX_GUARDRAILS
    assert all(line.replace("\u200b", "").isprintable() for line in text.split("\n"))
