"""How each model is spoken to: prompt formats as token ids, so that no text is ever decoded and encoded again in between.

A format is three id sequences around the prompt and the response: ``prefix + prompt + infix + response + suffix``. The
ids are data (``chat_formats.json``, beside every tokenizer); the paper's are those of its released code
(``data/reference/paper/chat_formats.json``), and a tokenizer has to agree with them before a run starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    @classmethod
    def load(cls, path: str | Path, *, policy: str = "policy") -> ChatFormats:
        """Read ``chat_formats.json`` or the folder that holds it; ``policy`` is the entry of the policy's format.

        Raises:
            ChatFormatError: if the file is missing, not JSON, or lacks an entry.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError:
            raise ChatFormatError(
                f"{path}: no such file; run the stage models, which writes {FILE} beside the tokenizer"
            ) from None
        except json.JSONDecodeError as error:
            raise ChatFormatError(f"{path}: not JSON ({error}); run the stage models again") from None
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
        return cls(spoken, guard, mrm, safe_id=safe_id, unsafe_id=unsafe_id, eos_id=_id(values, "eos", where))

    def save(self, path: str | Path) -> None:
        """Write ``chat_formats.json``, to this file or into this folder."""
        path = Path(path)
        formats = {"policy": self.policy, "guard": self.guard, "mrm": self.mrm}
        record = {
            "verdict": {"safe": self.safe_id, "unsafe": self.unsafe_id},
            "eos": self.eos_id,
            **{
                name: {part: list(getattr(value, part)) for part in ("prefix", "infix", "suffix")}
                for name, value in formats.items()
            },
        }
        records.write_json(path if path.suffix == ".json" else path / FILE, record)

    def verify(self, tokenizer: Tokenizer) -> None:
        """Check the formats against a tokenizer: decoded and encoded again, every id sequence must come back.

        A vocabulary whose words stand at other ids can pass that, so the verdict tokens must also read safe and unsafe.

        Raises:
            ChatFormatError: naming the first sequence that does not come back, or the verdict that reads otherwise.
        """
        remedy = f"check the pinned revisions of the models, or write {FILE} for this model family"
        for name, ids in self._sequences():
            text, again = _text(tokenizer, ids), _round_trip(tokenizer, ids)
            if again != list(ids):
                raise ChatFormatError(
                    f"chat format {name}: ids {_short(ids)} read {text[:40]!r} in this tokenizer, which encodes that as "
                    f"{_short(again)}; the formats are not this tokenizer's: {remedy}"
                )
        for word, id in (("safe", self.safe_id), ("unsafe", self.unsafe_id)):
            text = _text(tokenizer, (id,))
            if text.strip() != word:
                raise ChatFormatError(f"verdict.{word}: id {id} reads {text!r} in this tokenizer, not {word!r}; {remedy}")

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
