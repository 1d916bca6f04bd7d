"""Chat formats as text: from the config's words, or a tokenizer's chat template, to the token ids that are stored.

A piece of text is encoded alone, control tokens by their names, and has to come back when its ids are decoded.
"""

from __future__ import annotations

import datetime
from typing import Any

from saffron.chat import ChatFormat, ChatFormatError, ChatFormats
from saffron.config import ChatText, ChatTexts

KEY = "models.hub.chat_formats"
#: Stand for prompt and response while a template is read. No template changes them: they hold nothing to trim or escape.
PROMPT, RESPONSE = "0PROMPT0", "0RESPONSE0"
#: The day it is in a template that asks, so that ids do not depend on the day they are made (Llama 3.2's own default).
TODAY = datetime.datetime(2024, 7, 26)
#: Put before a template, it hides transformers' clock (which cannot be replaced from outside: a function given to a template
#: is made text). The last part keeps a line break with which the template begins.
CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('%{letter}', '{TODAY.strftime('%' + letter)}')" for letter in "aAbBdHIjmMpSyY")
    + " }}{% endmacro %}{{ '' }}"
)


def of_texts(texts: ChatTexts, policy: Any, guard: Any) -> ChatFormats:
    """The formats that a config says, in token ids.

    Args:
        texts: as configured.
        policy: the policy's tokenizer.
        guard: the guard's tokenizer, which is the MRM's as well.

    Raises:
        ChatFormatError: if there is no template, or none that holds prompt and response once each; if the tokenizer does not give
            a text back; if a verdict or EOS is not one token.
    """
    asked = _format(texts.guard, guard, "guard", exchange=True)
    read = ChatFormat(asked.prefix, asked.infix, ()) if texts.mrm is None else _format(texts.mrm, guard, "mrm", exchange=False)
    eos = texts.eos if texts.eos is not None else policy.eos_token
    if eos is None:
        raise ChatFormatError(f"{KEY}.eos: the policy's tokenizer names no EOS; write the token that ends an answer")
    if not asked.suffix:
        raise ChatFormatError(
            f"{KEY}.guard: nothing follows the response in the tokenizer's chat template, but the verdict is read behind it; "
            "add guard.suffix, the text after which the guard answers"
        )
    safe, unsafe = (_one(guard, word, f"{KEY}.{name}") for name, word in (("safe", texts.safe), ("unsafe", texts.unsafe)))
    return ChatFormats(
        policy=_format(texts.policy, policy, "policy", exchange=False),
        guard=asked,
        mrm=read,
        safe_id=safe,
        unsafe_id=unsafe,
        eos_id=_one(policy, eos, f"{KEY}.eos"),
        safe=texts.safe,
        unsafe=texts.unsafe,
    )


def _format(text: ChatText, tokenizer: Any, role: str, *, exchange: bool) -> ChatFormat:
    parts = (text.prefix, text.infix, text.suffix)
    if text.template:
        before, between, end = _template(tokenizer, role, exchange=exchange)
        parts = (before, between, end + text.suffix)
    names = ("prefix", "infix", "suffix")
    return ChatFormat(*(_ids(tokenizer, part, f"{KEY}.{role}.{name}") for name, part in zip(names, parts, strict=True)))


def _template(tokenizer: Any, role: str, *, exchange: bool) -> tuple[str, str, str]:
    """Text before the prompt, before the response and after it, as the tokenizer's chat template has them.

    Args:
        tokenizer: with a chat template.
        role: for messages.
        exchange: the template is given prompt and response, and the header of a further answer follows; else it is given the
            prompt alone, and that header is what the response follows.
    """
    where = f"{KEY}.{role}.template"
    if not getattr(tokenizer, "chat_template", None):
        raise ChatFormatError(f"{where}: the {role}'s tokenizer has no chat template; write prefix, infix and suffix as text")
    messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSE}]
    try:
        rendered: str = tokenizer.apply_chat_template(
            messages if exchange else messages[:1],
            chat_template=CLOCK + tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # jinja2's, or whatever the template raises
        raise ChatFormatError(
            f"{where}: the tokenizer's chat template cannot be applied ({type(error).__name__}: {error}); write prefix, infix "
            "and suffix as text"
        ) from None
    if [rendered.count(PROMPT), rendered.count(RESPONSE)] != [1, int(exchange)]:
        raise ChatFormatError(
            f"{where}: the tokenizer's chat template does not write the prompt{' and the response' if exchange else ''} exactly "
            "once; write prefix, infix and suffix as text"
        )
    before, after = rendered.split(PROMPT)
    if not exchange:
        return before, after, ""
    if RESPONSE not in after:
        raise ChatFormatError(
            f"{where}: the template writes the response before the prompt; write prefix, infix and suffix as text"
        )
    between, end = after.split(RESPONSE)
    return before, between, end


def _ids(tokenizer: Any, text: str, where: str) -> tuple[int, ...]:
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    read = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if read != text:
        raise ChatFormatError(f"{where}: the tokenizer reads {text!r} as {read!r}; write a text that it keeps as it is")
    return ids


def _one(tokenizer: Any, text: str, where: str) -> int:
    """The one token that a text is."""
    ids = _ids(tokenizer, text, where)
    if len(ids) == 1:
        return ids[0]
    other = text.lstrip() if text != text.lstrip() else f" {text}"
    better = len(tokenizer.encode(other, add_special_tokens=False)) == 1
    raise ChatFormatError(
        f"{where}: {text!r} is {len(ids)} tokens here ({tokenizer.convert_ids_to_tokens(list(ids))}), but it is read as one; "
        + (f"{other!r} is one: write that, if the guard answers with it" if better else "take a word that is one token")
    )
