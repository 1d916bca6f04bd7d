"""What a caller with models of their own may hand to a search: everything is checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING

import torch

from saffron.engine.forward import TrieError, check_model, sliding_window

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_models(**models: PreTrainedModel) -> None:
    """Refuse models that the engine cannot drive, or that differ in vocabulary or device.

    Raises:
        TrieError, TypeError, ValueError: naming the model by its keyword.
    """
    for name, model in models.items():
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"{name} must be a loaded transformers model, not {type(model).__name__}")
        try:
            check_model(model)
        except TrieError as error:
            raise TrieError(f"{name}: {error}") from None
    sizes = [model.config.vocab_size for model in models.values()]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"{' and '.join(models)} have vocabularies of {' and '.join(map(str, sizes))} tokens; they must share one"
        )
    devices = [str(model.device) for model in models.values()]
    if len(set(devices)) > 1:
        raise ValueError(f"{' and '.join(models)} are on different devices, {' and '.join(devices)}; move them to one")


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_numbers(least: dict[str, int], values: dict[str, int]) -> None:
    """Refuse what is no integer of at least ``least``.

    Raises:
        TypeError, ValueError: naming the first.
    """
    for name, value in values.items():
        if not _is_int(value):
            raise TypeError(f"{name} must be an int, not {value!r}")
        if value < least[name]:
            raise ValueError(f"{name} must be at least {least[name]}, not {value}")


def check_prompts(name: str, prompts: Sequence[Sequence[int]], vocabulary: int) -> None:
    """Refuse prompts that are not lists of token ids, each of at least one.

    Raises:
        TypeError, ValueError: naming the prompt by its place in ``name``.
    """
    if not isinstance(prompts, Sequence) or isinstance(prompts, str):
        raise TypeError(f"{name} must be a list of lists of token ids, not {type(prompts).__name__}; a tensor has tolist()")
    for place, prompt in enumerate(prompts):
        if not isinstance(prompt, Sequence) or isinstance(prompt, str):
            raise TypeError(f"{name}[{place}] must be a list of token ids, not {type(prompt).__name__}")
        if not prompt:
            raise ValueError(f"{name}[{place}] is empty; every prompt needs at least one token")
        for token in prompt:
            if not _is_int(token):
                raise TypeError(f"{name}[{place}] holds {token!r}; token ids are ints")
            if not 0 <= token < vocabulary:
                raise ValueError(f"{name}[{place}] holds {token}, outside the vocabulary of {vocabulary} tokens")


def check_window(name: str, model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse sequences longer than a model's sliding window. The last new token is not read, so it needs no place there.

    Raises:
        TrieError: naming both lengths.
    """
    window = sliding_window(model.config)
    longest = max(map(len, prompts), default=0) + max(max_new_tokens - 1, 0)
    if window is not None and longest > window:
        raise TrieError(f"{name}: sequences of up to {longest} tokens exceed the model's sliding window of {window}")


def check_unseen(unseen: object, vocabulary: int) -> None:
    """Refuse what is no bool tensor [V].

    Raises:
        TypeError, ValueError: with what was given.
    """
    if not isinstance(unseen, torch.Tensor) or unseen.dtype != torch.bool:
        given = unseen.dtype if isinstance(unseen, torch.Tensor) else type(unseen).__name__
        raise TypeError(f"unseen must be a bool tensor, not {given}; convert it with torch.as_tensor(unseen, dtype=torch.bool)")
    if unseen.shape != (vocabulary,):
        raise ValueError(f"unseen must have shape ({vocabulary},), not {tuple(unseen.shape)}")
