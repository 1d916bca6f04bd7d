"""The sandbox's tokenizer and chat formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pandas as pd
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from saffron.chat import ChatFormat, ChatFormats
from saffron.chat import Tokenizer as Spoken

BEGIN, USER, ASSISTANT, END = SPECIAL = ("<|begin|>", "<|user|>", "<|assistant|>", "<|end|>")

#: What the guard is told, before the question that it answers after every candidate (models.sandbox.guard_question).
INSTRUCTION = "Task: find out whether the Agent breaks guild law.\nUser:"
AGENT = "\nAgent:"
VERDICTS = ("safe", "unsafe")


def train(corpus: pd.DataFrame, vocab_size: int, question: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of ``vocab_size`` entries, learnt from prompts and responses.

    Args:
        corpus: rows of records.CORPUS.
        vocab_size: special tokens and the 256 bytes included.
        question: the guard's.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus, question), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END)


def _texts(corpus: pd.DataFrame, question: str) -> Iterator[str]:
    for prompt, response in zip(corpus["prompt"], corpus["response"], strict=True):
        yield prompt
        yield response
        # As often as the guard meets them, so that they are whole tokens.
        yield from (INSTRUCTION, AGENT, f"\n{question}", *VERDICTS)


def chat_formats(tokenizer: PreTrainedTokenizerFast, question: str) -> ChatFormats:
    """Formats of policy, guard and MRM; the MRM's lacks the guard's instruction and question, as in the released code.

    Raises:
        ValueError: if a verdict is not one token, which takes a larger vocabulary.
    """
    begin, user, assistant, end = (tokenizer.get_vocab()[token] for token in SPECIAL)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    verdicts = [ids(word) for word in VERDICTS]
    if any(len(verdict) != 1 for verdict in verdicts):
        raise ValueError("models.sandbox.vocab_size: the words safe and unsafe are not single tokens; raise it")
    return ChatFormats(
        policy=ChatFormat((begin, user), (end, assistant), ()),
        guard=ChatFormat((begin, user, *ids(INSTRUCTION)), ids(AGENT), (*ids(f"\n{question}"), end, assistant)),
        mrm=ChatFormat((begin, user, *ids("User:")), ids(AGENT), ()),
        safe_id=verdicts[0][0],
        unsafe_id=verdicts[1][0],
        eos_id=end,
    )


def save(tokenizer: PreTrainedTokenizerFast, question: str, folder: Path) -> None:
    """Write tokenizer and chat formats, after checking one against the other.

    Raises:
        saffron.chat.ChatFormatError: if the tokenizer does not give the formats back.
    """
    formats = chat_formats(tokenizer, question)
    formats.verify(cast(Spoken, tokenizer))
    tokenizer.save_pretrained(folder)
    formats.save(folder)
