"""Readers of rows: every layout that preference sets come in, and what is dropped by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saffron.sources import reading, transcripts
from saffron.sources.reading import Conversation, Dropped, Prompt, ReaderError, Row, SourceError, readers

CHOSEN = "\n\nHuman: Hello\n\nAssistant: Good day\n\nHuman: Bread?\n\nAssistant: Ask a baker."
REJECTED = "\n\nHuman: Hello\n\nAssistant: Good day\n\nHuman: Bread?\n\nAssistant: First, knead."
HISTORY = [("user", "Hello"), ("assistant", "Good day"), ("user", "Bread?")]


def read(name: str, value: Any, **settings: Any) -> Conversation:
    reader = readers()[name]
    assert reader.conversation is not None
    return reader.conversation(Row("key: file, row 1", value), reader.settings.model_validate(settings))


def read_prompt(name: str, value: Any, **settings: Any) -> Prompt:
    reader = readers()[name]
    assert reader.prompt is not None
    return reader.prompt(Row("key: file, row 1", value), reader.settings.model_validate(settings))


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


LAYOUTS = {
    "as HH-RLHF writes it": {"chosen": CHOSEN, "rejected": REJECTED},
    "leading blank lines stripped": {"chosen": CHOSEN.strip(), "rejected": REJECTED.strip()},
    "CRLF": {"chosen": CHOSEN.replace("\n", "\r\n"), "rejected": REJECTED.replace("\n", "\r\n")},
    "a transcript as prompt": {
        "prompt": CHOSEN.removesuffix(" Ask a baker."),
        "chosen": " Ask a baker.",
        "rejected": " First, knead.",
    },
    "a stripped transcript as prompt": {
        "prompt": CHOSEN.removesuffix("\n\nAssistant: Ask a baker.").strip(),
        "chosen": "Ask a baker.",
        "rejected": "First, knead.",
    },
    "messages, whole": {
        "chosen": messages(*HISTORY, ("assistant", "Ask a baker.")),
        "rejected": messages(*HISTORY, ("assistant", "First, knead.")),
    },
    "messages, whole, with a prompt beside them": {
        "prompt": "Bread?",
        "chosen": messages(*HISTORY, ("assistant", "Ask a baker.")),
        "rejected": messages(*HISTORY, ("assistant", "First, knead.")),
    },
    "messages, prompt and answers": {
        "prompt": messages(*HISTORY),
        "chosen": messages(("assistant", "Ask a baker.")),
        "rejected": messages(("assistant", "First, knead.")),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_preference_pair_is_the_same_conversation(layout: str) -> None:
    assert read("preference_pairs", LAYOUTS[layout]) == Conversation(CHOSEN, REJECTED)


def test_a_plain_prompt_with_two_answers_is_a_pair_and_a_prompt_under_any_column_names() -> None:
    row = {"q": "Bread?", "good": "Ask a baker.", "bad": "First, knead."}
    names = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    pair = read("preference_pairs", row, **names)
    assert pair == Conversation("\n\nHuman: Bread?\n\nAssistant: Ask a baker.", "\n\nHuman: Bread?\n\nAssistant: First, knead.")
    assert read_prompt("preference_pairs", row, **names) == Prompt("Bread?", "First, knead.")
    assert read_prompt("preference_pairs", row, **names, reference="chosen") == Prompt("Bread?", "Ask a baker.")


words = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], exclude_characters=":"), min_size=1
)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_a_transcript_survives_a_copy_that_stripped_it_or_changed_its_line_ends(turns: list[tuple[str, str]]) -> None:
    whole = "".join(f"\n\nHuman: {question}\n\nAssistant: {answer}" for question, answer in turns)
    for copy in (whole, whole.strip(), whole.replace("\n", "\r\n"), whole.lstrip().replace("\n", "\r")):
        found = read("preference_pairs", {"chosen": copy, "rejected": copy}).chosen
        assert transcripts.split_turns(found) == [
            turn for question, answer in turns for turn in (("Human", question), ("Assistant", answer))
        ]


@pytest.mark.parametrize(
    ("name", "row", "kind"),
    [
        ("preference_pairs", {"chosen": CHOSEN, "rejected": None}, "rejected is null"),
        ("preference_pairs", {"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}, "no answer"),
        ("preference_pairs", {"prompt": None, "chosen": "a", "rejected": "b"}, "prompt is null"),
        ("preference_pairs", {"chosen": CHOSEN + "\ud800", "rejected": REJECTED}, "chosen holds a lone surrogate"),
        ("preference_pairs", {"prompt": "a", "chosen": "b\n\nHuman: c", "rejected": "d"}, "a text that holds a turn's header"),
        ("messages", messages(("system", "Be kind."), ("user", "a"), ("assistant", "b")), "a message of the role system"),
        ("messages", messages(("user", "a"), ("assistant", " ")), "a message is blank"),
        ("messages", messages(("user", "a")), "no answer"),
        ("columns", {"prompt": "a", "reference": "\n"}, "reference is blank"),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_by_kind(name: str, row: Any, kind: str) -> None:
    with pytest.raises(Dropped) as caught:
        read(name, row)
    assert caught.value.kind.startswith(kind)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("preference_pairs", {"chosen": CHOSEN}, "no column rejected, there are chosen; name the right one"),
        ("preference_pairs", {"chosen": 3, "rejected": REJECTED}, "chosen should be a list of"),
        ("preference_pairs", [1], "not an object with columns but a list"),
        ("messages", {"text": "a"}, "no column messages, there are text"),
        ("messages", [{"from": "human"}], "a message of the row has no role or no content"),
        ("columns", {"prompt": ["a"], "reference": "b"}, "prompt should be text, found list"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_its_row_and_the_remedy(name: str, row: Any, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(name, row)
    assert str(caught.value).startswith(f"key: file, row 1: {message}")


def test_prompts_are_single_questions_with_the_reference_there_is() -> None:
    assert read_prompt("messages", {"messages": messages(("user", "a"), ("assistant", "b"))}) == Prompt("a", "b")
    assert read_prompt("messages", messages(("user", "a"))) == Prompt("a", None)
    assert read_prompt("columns", {"prompt": "a\r\nb", "reference": "c"}) == Prompt("a\nb", "c")
    assert read_prompt("columns", {"prompt": "a", "reference": " "}) == Prompt("a", None)
    assert read_prompt("columns", {"prompt": "a"}, reference=None) == Prompt("a", None)
    for name, row in (("messages", messages(*HISTORY, ("assistant", "x"))), ("preference_pairs", LAYOUTS["CRLF"])):
        with pytest.raises(Dropped, match="not one question"):
            read_prompt(name, row)


def test_a_reader_from_outside_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rows.py").write_text(
        "from saffron.section import Section\n"
        "from saffron.sources.reading import Prompt, Reader\n"
        "class Settings(Section):\n    'None.'\n"
        "def prompt(row, settings):\n    return Prompt(row.text(row.value, 'the row').upper())\n"
        "READER = Reader('lines of text', Settings, prompt=prompt)\nOTHER = 3\n"
    )
    info = tmp_path / "my_rows-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rows\nVersion: 1\n")
    points = info / "entry_points.txt"
    points.write_text("[saffron.readers]\nmy_rows = my_rows:READER\n")
    monkeypatch.syspath_prepend(tmp_path)
    reading.readers.cache_clear()
    try:
        assert read_prompt("my_rows", "a") == Prompt("A")
        assert reading.modules("my_rows") == ["my_rows"]
        for line, message in (
            ("columns = my_rows:READER", "two of this name"),
            ("my_rows = my_rows:OTHER", "is a int, not"),
            ("My-Rows = my_rows:READER", "a name has lower-case letters"),
        ):
            points.write_text(f"[saffron.readers]\n{line}\n")
            reading.readers.cache_clear()
            with pytest.raises(ReaderError, match=message):
                readers()
    finally:
        monkeypatch.undo()
        reading.readers.cache_clear()
