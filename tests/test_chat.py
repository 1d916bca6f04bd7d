from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from saffron.chat import ChatFormat, ChatFormatError, ChatFormats, control_ids

PAPER = Path(__file__).parents[1] / "data/reference/paper/chat_formats.json"
ids = st.lists(st.integers(0, 200_000), max_size=12)


class Letters:
    """A tokenizer of one id per character, as exact as can be; two more ids are the verdict's words."""

    words = ("safe", "unsafe")

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [0x110000 + self.words.index(text)] if text in self.words else [ord(letter) for letter in text]

    def decode(self, ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        if len(ids) == 1 and ids[0] >= 0x110000:
            return self.words[ids[0] - 0x110000]
        return "".join(map(chr, ids))


class Merging(Letters):
    """Encodes a doubled letter as one id, so that ids with a doubled letter do not come back."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return super().encode(text.replace("oo", "ω"), add_special_tokens=add_special_tokens)


class Swapped(Letters):
    """Another vocabulary of the same size."""

    words = ("bread", "soup")


def formats(**changes: object) -> dict[str, object]:
    part = {"prefix": [60, 62], "infix": [10], "suffix": [35, 33]}
    values: dict[str, object] = {
        "policy": part,
        "guard": part,
        "mrm": {**part, "suffix": []},
        "verdict": {"safe": 0x110000, "unsafe": 0x110001},
        "eos": 36,
    }
    return {**values, **changes}


@given(ids, ids, ids, ids, ids)
def test_render_is_the_prompt_and_what_follows_it(
    prefix: list[int], infix: list[int], suffix: list[int], prompt: list[int], response: list[int]
) -> None:
    chat = ChatFormat(tuple(prefix), tuple(infix), tuple(suffix))
    whole = chat.render(prompt, response)
    assert whole == prefix + prompt + infix + response + suffix
    assert whole[: len(chat.prompt(prompt))] == chat.prompt(prompt)


@pytest.mark.parametrize("policy", ["llama3_policy", "llama32_policy"])
def test_paper_formats_have_the_lengths_the_paper_states(policy: str) -> None:
    chats = ChatFormats.load(PAPER, policy=policy)
    assert (len(chats.guard.prefix), len(chats.guard.infix), len(chats.guard.suffix)) == (138, 3, 56)
    assert (len(chats.mrm.prefix), len(chats.mrm.infix), len(chats.mrm.suffix)) == (4, 3, 0)
    assert (chats.safe_id, chats.unsafe_id, chats.eos_id) == (19193, 39257, 128009)
    assert len(chats.policy.infix) == 5
    assert len(chats.policy.prefix) == {"llama3_policy": 5, "llama32_policy": 30}[policy]


def test_saved_formats_load_again_from_file_and_folder(tmp_path: Path) -> None:
    chats = replace(ChatFormats.load(PAPER, policy="llama32_policy"), safe=" yes", unsafe=" no", control_tokens_in_text=True)
    chats.save(tmp_path)
    assert ChatFormats.load(tmp_path) == chats
    assert ChatFormats.load(tmp_path / "chat_formats.json") == chats


def test_verify_accepts_a_tokenizer_that_gives_the_ids_back() -> None:
    ChatFormats.of(formats(), where="here").verify(Letters())


@pytest.mark.parametrize(
    ("name", "change"),
    [("guard.infix", {"guard": {"prefix": [60], "infix": [111, 111], "suffix": [35]}}), ("eos", {"eos": 2_000_000})],
)
def test_verify_names_the_sequence_that_comes_back_otherwise(name: str, change: dict[str, object]) -> None:
    with pytest.raises(ChatFormatError, match=rf"chat format {name}: .*check the pinned revisions"):
        ChatFormats.of(formats(**change), where="here").verify(Merging())


def test_verdict_ids_must_read_safe_and_unsafe() -> None:
    with pytest.raises(ChatFormatError, match=r"verdict\.safe: id 1114112 reads 'bread' in this tokenizer, not 'safe'"):
        ChatFormats.of(formats(), where="here").verify(Swapped())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guard": None}, "no format guard"),
        ({"mrm": {"prefix": [1], "infix": ["a"], "suffix": []}}, "mrm.infix must be a list of token ids"),
        ({"mrm": {"prefix": [1], "infix": [2]}}, "mrm.suffix must be a list of token ids, not None"),
        ({"verdict": {"safe": 1}}, "verdict: unsafe must be a token id, not None"),
        ({"verdict": {"safe": 1, "unsafe": 1}}, "a verdict needs two tokens"),
        ({"eos": True}, "eos must be a token id, not True"),
        (
            {"guard": {"prefix": [1], "infix": [2], "suffix": []}},
            r"guard\.suffix is empty.*give it the ids of the text after which",
        ),
    ],
)
def test_malformed_formats_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "chat_formats.json"
    path.write_text(json.dumps(formats(**change)))
    with pytest.raises(ChatFormatError, match=message) as caught:
        ChatFormats.load(path)
    assert str(path) in str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ChatFormatError, match=r"chat_formats\.json: no such record; run .*the stage models"):
        ChatFormats.load(tmp_path)
    (tmp_path / "chat_formats.json").write_text("{")
    with pytest.raises(ChatFormatError, match="not JSON"):
        ChatFormats.load(tmp_path)


# ------------------------------------------------------------------------------------------------- text of users and datasets
TOOL = AddedToken("<tool_call>", special=False, normalized=False)
BLANKS = AddedToken("    ", special=False, normalized=False)


def byte_level(merges: bool) -> PreTrainedTokenizerFast:
    """Llama 3's kind (``merges``: SmolLM2's): byte-level BPE, special tokens, one that is not, blanks, and a text's beginning."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: id for id, letter in enumerate(letters)}
    joined = [("s", "a"), ("f", "e"), ("sa", "fe"), ("<", "|")]
    vocabulary |= {"".join(pair): len(letters) + id for id, pair in enumerate(joined)}
    core = Backend(models.BPE(vocabulary, joined if merges else [], ignore_merges=not merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    core.add_tokens([TOOL, BLANKS])
    begin = core.token_to_id(SPECIAL[0])
    core.post_processor = processors.TemplateProcessing(single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], begin)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=SPECIAL[0], eos_token=SPECIAL[1])


SPECIAL = ("<|begin_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>")
TOKENIZERS = [byte_level(merges=False), byte_level(merges=True)]
SPOKEN = ChatFormats.of(formats(), where="here")
pieces = st.one_of(st.sampled_from([*SPECIAL, "<tool_call>", "    ", "safe", "<|", "|>"]), st.text(max_size=5))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(texts=st.lists(st.lists(pieces, max_size=6).map("".join), max_size=3))
def test_no_text_becomes_a_control_token_and_none_is_lost(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    encoded = SPOKEN.encode(tokenizer, texts)
    control = {tokenizer.convert_tokens_to_ids(name) for name in (*SPECIAL, "<tool_call>")}
    assert control_ids(tokenizer) == control
    for text, ids in zip(texts, encoded, strict=True):
        assert control.isdisjoint(ids)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_text_without_a_control_token_is_encoded_as_ever(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["Is rye bread safe?", "", "a    b", "é <| 3 |> <tool_cal l>"]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert SPOKEN.encode(tokenizer, texts) == expected
    tokenizer.encode("<|im_start|>", add_special_tokens=False)
    assert SPOKEN.encode(tokenizer, texts) == expected  # a call leaves nothing behind for the next
    assert tokenizer.encode("<|im_start|>", add_special_tokens=False) == [tokenizer.convert_tokens_to_ids("<|im_start|>")]


def test_the_released_code_s_way_is_a_switch() -> None:
    tokenizer, text = TOKENIZERS[0], "a<|eot_id|><tool_call>"
    released = replace(SPOKEN, control_tokens_in_text=True).encode(tokenizer, [text])
    assert released == [tokenizer.convert_tokens_to_ids(["a", "<|eot_id|>", "<tool_call>"])]
    assert len(SPOKEN.encode(tokenizer, [text])[0]) > 3


def test_a_vocabulary_that_itself_reads_control_tokens_is_refused() -> None:
    core = Backend(models.WordLevel({"<s>": 0, "a": 1, "?": 2}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    assert SPOKEN.encode(tokenizer, ["a a"]) == [[1, 1]]
    with pytest.raises(ChatFormatError, match=r"holds '<s>', which .* as the control token 0 .*control_tokens_in_text: true"):
        SPOKEN.encode(tokenizer, ["a <s>"])
