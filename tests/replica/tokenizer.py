"""A fixture tokenizer with Llama 3's id layout: 256 byte tokens, 127,744 words, 256 special tokens from 128,000 on.

The words are made up, except that common benign words and a few whose ids the paper's chat formats use have their own
token. What it shares with the real tokenizer is what the project relies on: the vocabulary's size, the special tokens' ids
and names, and that the ids of ``chat_formats.json`` come back when they are decoded and encoded again.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from itertools import product

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 128_256
SPECIAL = 128_000
#: Names of the special tokens that are not reserved; Llama 3.1 and Llama Guard 3 name two more than Llama 3.
NAMED = {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 9: "eot_id"}
NAMED_SINCE_3_1 = {**NAMED, 4: "finetune_right_pad_id", 8: "eom_id"}

#: Texts of some ids that the chat formats use.
FIXED = {
    271: "\n\n",
    364: " '",
    397: ">\n",
    1363: ">\n\n",
    627: ":\n",
    882: "user",
    9125: "system",
    78191: "assistant",
    19193: "safe",
    39257: "unsafe",
    1502: "User",
    17230: "Agent",
}

_TEXT = """please tell me how to bake a loaf of rye bread at home and what do you need for it first mix the flour with water
salt yeast then knead dough let rest one hour warm oven until crust is brown cool on rack slice serve butter soup carrots
onions plant tomato seeds in spring keep soil moist sun garden path paint wooden fence blue brush dry twice sand board
sorry that not something can help but here another idea tea mint lemon honey cup kettle boil pour steep minutes sweet
good morning thanks of course sure which colour best wool scarf knit needles row stitch yarn simple steps follow these"""
WORDS = tuple(_TEXT.split())


def _byte_letters() -> list[str]:
    """The 256 letters of byte-level BPE in the order of Llama 3's first ids: printable bytes first, then the others."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + rank) for rank in range(len(others))]


def _spelled(text: str) -> str:
    """ASCII text in byte-level letters."""
    return text.replace(" ", "Ġ").replace("\n", "Ċ")


def _vocabulary(reserved: Mapping[int, str], words: tuple[str, ...]) -> dict[str, int]:
    vocabulary = {letter: id for id, letter in enumerate(_byte_letters())}
    vocabulary |= {_spelled(text): id for id, text in reserved.items()}
    common = [
        spelled for word in dict.fromkeys(words) for spelled in (f"Ġ{word}", word.capitalize()) if spelled not in vocabulary
    ]
    made_up = ("Ġx" + "".join(letters) for letters in product(string.ascii_lowercase, repeat=4))
    # Ids of the chat formats lie thick below 1,000; common words start above.
    later = iter([id for id in range(1_000, SPECIAL) if id not in reserved])
    vocabulary |= {word: next(later) for word in common if word.isascii() or word.startswith("Ġ")}
    taken = set(vocabulary.values())
    vocabulary |= {next(made_up): id for id in range(256, SPECIAL) if id not in taken}
    return vocabulary


def special_tokens(named: Mapping[int, str]) -> list[str]:
    """The 256 special tokens in the order of their ids."""
    reserved = iter(range(VOCABULARY - SPECIAL))
    return [
        f"<|{named[offset]}|>" if offset in named else f"<|reserved_special_token_{next(reserved)}|>" for offset in range(256)
    ]


def build(named: Mapping[int, str] = NAMED, format_ids: frozenset[int] = frozenset()) -> PreTrainedTokenizerFast:
    """The tokenizer; ``format_ids`` are ids that must not fall on a common word."""
    reserved = {
        **{id: f" z{id}".translate(str.maketrans(string.digits, "abcdefghij")) for id in format_ids if 256 <= id < SPECIAL},
        **FIXED,
    }
    core = Tokenizer(models.BPE(_vocabulary(reserved, WORDS), [], ignore_merges=True))
    pieces = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}][\r\n]*|[\r\n]+|\s")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens(named)])
    assert core.get_vocab_size() == VOCABULARY
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
