from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saffron.sources.conversations import collect, pairs, select, split_turns

words = (
    st.text(st.characters(codec="ascii", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e:"), min_size=1).map(str.strip).filter(bool)
)


def conversation(*turns: tuple[str, str]) -> str:
    return "".join(f"\n\n{role}: {text}" for role, text in turns)


def table(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"source_row": i, "split": split, "subset": "x", "chosen": chosen, "rejected": rejected}
            for i, (split, chosen, rejected) in enumerate(rows)
        ]
    )


@given(st.lists(st.tuples(st.sampled_from(["Human", "Assistant"]), words)))
def test_turns_come_back_as_they_went_in(turns):
    assert split_turns(conversation(*turns)) == turns


def test_a_prompt_is_everything_said_before_without_the_first_header():
    text = conversation(("Human", "a"), ("Assistant", "b"), ("Human", "c"), ("Assistant", "d"))
    assert pairs(text) == [("a", "b"), ("a\n\nAssistant: b\n\nHuman: c", "d")]


def test_repeated_roles_inline_headers_and_leading_text():
    assert pairs(conversation(("Human", "a"), ("Human", "b"), ("Assistant", "c"))) == [("a\n\nHuman: b", "c")]
    assert pairs("lead\n\nHuman: say Assistant: now\n\nAssistant: no") == [("say Assistant: now", "no")]
    assert pairs("no header at all") == []
    assert pairs(conversation(("Assistant", "a"))) == [("", "a")]


@pytest.mark.parametrize(("turns", "indices"), [("first", [0]), ("last", [2]), ("all", [0, 1, 2])])
def test_selected_turns(turns, indices):
    assert select([("p", "r")] * 3, turns) == indices
    assert select([], turns) == []


def test_every_response_is_accounted_for():
    two = conversation(("Human", "a"), ("Assistant", "b"), ("Human", "c"), ("Assistant", "d"))
    rows = table(
        ("train", two, conversation(("Human", "a"), ("Assistant", "b"), ("Human", "c"), ("Assistant", "e"))),
        ("train", "no turns", conversation(("Human", "a"), ("Assistant", ""))),
        ("train", conversation(("Assistant", "a")), conversation(("Human", "a"), ("Assistant", "f"))),
    )
    responses, counts = collect(rows, "all")
    assert [r.response for r in responses] == ["b", "d", "e", "f"]
    assert counts.rows == 3
    assert (counts.conversations_without_response, counts.turns, counts.not_selected) == (1, 7, 0)
    assert (counts.without_prompt, counts.empty, counts.duplicates, counts.kept) == (1, 1, 1, 4)
    assert collect(rows, "last")[1].not_selected == 2
    assert [r.turn for r in collect(rows, "last")[0]] == [1, 1, 0]


def test_a_test_pair_that_is_also_in_the_train_split_is_dropped_from_the_test_split():
    same = conversation(("Human", "a"), ("Assistant", "b"))
    other = conversation(("Human", "a"), ("Assistant", "c"))
    responses, counts = collect(table(("test", same, other), ("train", same, same)), "all")
    assert [(r.split, r.response) for r in responses] == [("train", "b"), ("test", "c")]
    assert counts.duplicates == 2
    assert len({r.conversation_id for r in responses}) == 2


@given(
    st.lists(st.tuples(st.sampled_from(["train", "test"]), st.text("HA \n:ab"), st.text("HA \n:ab")), max_size=5),
    st.sampled_from(["first", "last", "all"]),
)
def test_counts_always_add_up(rows, turns):
    spoken = [(split, *(t.replace("H", "\n\nHuman:").replace("A", "\n\nAssistant:") for t in sides)) for split, *sides in rows]
    responses, counts = (
        collect(table(*spoken), turns)
        if spoken
        else collect(pd.DataFrame(columns=["source_row", "split", "chosen", "rejected"]), turns)
    )
    assert counts.rows == len(rows)
    assert counts.turns == counts.not_selected + counts.without_prompt + counts.empty + counts.duplicates + counts.kept
    assert counts.kept == len(responses) == len({(r.prompt, r.response) for r in responses})
    assert all(r.prompt and r.response for r in responses)
