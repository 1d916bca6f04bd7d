"""How each model is spoken to: prompt formats as token ids, so that no text is ever decoded and encoded again in between.

A format is three id sequences around the prompt and the response: ``prefix + prompt + infix + response + suffix``. The
ids are data (``chat_formats.json``, beside every tokenizer), made once by the tokenizer's job: from the config's text or a
tokenizer's own chat template (:mod:`saffron.models.formats`), or those of the paper's released code
(``data/reference/paper/chat_formats.json``). A tokenizer has to agree with them before a run starts.

Prompts and answers are text of users and datasets. What reads like a control token in them (``<|eot_id|>``) stays text:
:meth:`ChatFormats.encode` is the one way from such text to ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from saffron import records

FILE = "chat_formats.json"


class ChatFormatError(ValueError):
    """Chat formats that are missing, malformed, or at odds with a tokenizer; names the file or format and the remedy."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Text to ids."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """Ids to text."""


@dataclass(frozen=True)
class ChatFormat:
    """Token ids around a prompt and a response."""

    prefix: tuple[int, ...]
    infix: tuple[int, ...]
    suffix: tuple[int, ...]

    def prompt(self, prompt_ids: Sequence[int]) -> list[int]:
        """What a response is appended to: ``prefix + prompt + infix``."""
        return [*self.prefix, *prompt_ids, *self.infix]

    def render(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> list[int]:
        """The whole input: ``prefix + prompt + infix + response + suffix``."""
        return [*self.prompt(prompt_ids), *response_ids, *self.suffix]


@dataclass(frozen=True)
class ChatFormats:
    """The formats of policy, guard and MRM over one vocabulary, the guard's verdict tokens and EOS.

    The guard's reward (Section 3.1 of the paper) is ``R(s) = logit[safe_id] - logit[unsafe_id]`` at the last position of
    ``guard.render(prompt, response)``.
    """

    policy: ChatFormat
    guard: ChatFormat
    mrm: ChatFormat
    safe_id: int
    unsafe_id: int
    eos_id: int
    safe: str = "safe"  # what the verdict tokens read as
    unsafe: str = "unsafe"
    control_tokens_in_text: bool = False  # whether a control token's name in a prompt or an answer becomes that token

    @classmethod
    def load(cls, path: str | Path, *, policy: str = "policy") -> ChatFormats:
        """Read ``chat_formats.json`` or the folder that holds it; ``policy`` is the entry of the policy's format.

        Raises:
            ChatFormatError: if the file is missing, not JSON, or lacks an entry.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        try:
            values = records.read_json(path)
        except records.RecordError as error:
            raise ChatFormatError(f"{error} (the stage models, which writes {FILE} beside the tokenizer)") from None
        return cls.of(values, where=str(path), policy=policy)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str, policy: str = "policy") -> ChatFormats:
        """From the content of ``chat_formats.json``; ``where`` names its origin in errors.

        Raises:
            ChatFormatError: if an entry is missing or is not made of token ids.
        """
        spoken, guard, mrm = (_format(values, name, where) for name in (policy, "guard", "mrm"))
        safe_id, unsafe_id = (_id(values.get("verdict", {}), name, f"{where}: verdict") for name in ("safe", "unsafe"))
        if safe_id == unsafe_id:
            raise ChatFormatError(f"{where}: verdict.safe and verdict.unsafe are both {safe_id}; a verdict needs two tokens")
        if not guard.suffix:
            raise ChatFormatError(
                f"{where}: guard.suffix is empty, but the verdict is read behind it; give it the ids of the text after which the "
                "guard answers, which is at least the header of its turn"
            )
        words = values.get("words")
        words = words if isinstance(words, Mapping) else {}
        return cls(
            spoken,
            guard,
            mrm,
            safe_id=safe_id,
            unsafe_id=unsafe_id,
            eos_id=_id(values, "eos", where),
            safe=str(words.get("safe", "safe")),
            unsafe=str(words.get("unsafe", "unsafe")),
            control_tokens_in_text=bool(values.get("control_tokens_in_text", False)),
        )

    def save(self, path: str | Path) -> None:
        """Write ``chat_formats.json``, to this file or into this folder."""
        path = Path(path)
        formats = {"policy": self.policy, "guard": self.guard, "mrm": self.mrm}
        record = {
            "verdict": {"safe": self.safe_id, "unsafe": self.unsafe_id},
            "words": {"safe": self.safe, "unsafe": self.unsafe},
            "eos": self.eos_id,
            "control_tokens_in_text": self.control_tokens_in_text,
            **{
                name: {part: list(getattr(value, part)) for part in ("prefix", "infix", "suffix")}
                for name, value in formats.items()
            },
        }
        records.write_json(path if path.suffix == ".json" else path / FILE, record)

    def verify(self, tokenizer: Tokenizer) -> None:
        """Check the formats against a tokenizer: decoded and encoded again, every id sequence must come back.

        A vocabulary whose words stand at other ids can pass that, so the verdict tokens must also read as the verdicts' words.

        Raises:
            ChatFormatError: naming the first sequence that does not come back, or the verdict that reads otherwise.
        """
        remedy = "check the pinned revisions of the models, or write models.hub.chat_formats for this model family"
        for name, ids in self._sequences():
            text, again = _text(tokenizer, ids), _round_trip(tokenizer, ids)
            if again != list(ids):
                raise ChatFormatError(
                    f"chat format {name}: ids {_short(ids)} read {text[:40]!r} in this tokenizer, which encodes that as "
                    f"{_short(again)}; the formats are not this tokenizer's: {remedy}"
                )
        for name, word, id in (("safe", self.safe, self.safe_id), ("unsafe", self.unsafe, self.unsafe_id)):
            text = _text(tokenizer, (id,))
            if text.strip() != word.strip():
                raise ChatFormatError(f"verdict.{name}: id {id} reads {text!r} in this tokenizer, not {word!r}; {remedy}")

    def encode(self, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
        """Texts of users and datasets as ids, without anything around them.

        No id is that of a control token, whatever a text says, unless ``control_tokens_in_text``.

        Args:
            tokenizer: a fast tokenizer of Hugging Face.
            texts: prompts or answers.

        Raises:
            ChatFormatError: if the tokenizer's vocabulary itself reads a part of a text as a control token.
        """
        if not texts:
            return []
        split = not self.control_tokens_in_text
        found = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=split)["input_ids"]
        if not split:
            return [list(ids) for ids in found]
        control = control_ids(tokenizer)
        return [
            list(ids) if control.isdisjoint(ids) else _plain(tokenizer, text, control)
            for text, ids in zip(texts, found, strict=True)
        ]

    @property
    def ids(self) -> set[int]:
        """Every token id that a format, a verdict or EOS uses."""
        return {id for _, sequence in self._sequences() for id in sequence}

    def _sequences(self) -> list[tuple[str, Sequence[int]]]:
        named = {"policy": self.policy, "guard": self.guard, "mrm": self.mrm}
        parts = [
            (f"{name}.{part}", getattr(value, part)) for name, value in named.items() for part in ("prefix", "infix", "suffix")
        ]
        single = [("verdict.safe", (self.safe_id,)), ("verdict.unsafe", (self.unsafe_id,)), ("eos", (self.eos_id,))]
        return [(name, ids) for name, ids in [*parts, *single] if ids]


@lru_cache(maxsize=4)
def control_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that no text may become: tokens added to the vocabulary, special or not, but for runs of blanks (GPT-NeoX has such)."""
    return frozenset(id for id, token in tokenizer.added_tokens_decoder.items() if token.special or token.content.strip())


@lru_cache(maxsize=2)
def _without_added_tokens(tokenizer: Any) -> Any:
    """The tokenizer's backend, to which every control token is special, as only those can be told to be read as text."""
    from tokenizers import Tokenizer as Backend

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    control = control_ids(tokenizer)
    for token in content["added_tokens"]:
        token["special"] = token["id"] in control
    backend = Backend.from_str(json.dumps(content))
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return backend


def _plain(tokenizer: Any, text: str, control: frozenset[int]) -> list[int]:
    """Ids of a text that holds the name of an added token which is not special (Qwen's ``<tool_call>``), read as text."""
    ids: list[int] = _without_added_tokens(tokenizer).encode(text, add_special_tokens=False).ids
    left = [id for id in ids if id in control]
    if left:
        raise ChatFormatError(
            f"a text holds {tokenizer.convert_ids_to_tokens(left[0])!r}, which the tokenizer's vocabulary reads as the control "
            f"token {left[0]} however it is asked; remove it from the prompt or the conversation, or let it be one: "
            "models.hub.control_tokens_in_text: true"
        )
    return ids


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """What ids read as; nothing if the tokenizer does not have them."""
    try:
        return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    except (IndexError, OverflowError, TypeError):
        return ""


def _round_trip(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    return list(tokenizer.encode(_text(tokenizer, ids), add_special_tokens=False))


def _format(values: Mapping[str, Any], name: str, where: str) -> ChatFormat:
    entry = values.get(name)
    if not isinstance(entry, dict):
        raise ChatFormatError(f"{where}: no format {name}; it needs prefix, infix and suffix (lists of token ids)")
    return ChatFormat(*(_ids(entry.get(part), f"{where}: {name}.{part}") for part in ("prefix", "infix", "suffix")))


def _ids(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise ChatFormatError(f"{where} must be a list of token ids, not {value!r}")
    return tuple(value)


def _id(values: Any, name: str, where: str) -> int:
    value = values.get(name) if isinstance(values, Mapping) else None
    if type(value) is not int or value < 0:
        raise ChatFormatError(f"{where}: {name} must be a token id, not {value!r}")
    return value


def _short(ids: Sequence[int]) -> str:
    return str(list(ids)) if len(ids) <= 8 else f"[{', '.join(map(str, ids[:8]))}, ... {len(ids)} ids]"
