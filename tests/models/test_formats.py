from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from replica import models as replica_models
from replica import tokenizer as replica_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saffron import config
from saffron.chat import ChatFormatError, ChatFormats
from saffron.config import ChatTexts
from saffron.models import formats

PAPER = Path(__file__).parents[2] / "data/reference/paper/chat_formats.json"
HEADER = "'<|start_header_id|>' + {} + '<|end_header_id|>\n\n'"
LLAMA_3 = (
    "{% for m in messages %}{% set content = " + HEADER.format("m['role']") + " + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ " + HEADER.format("'assistant'") + " }}{% endif %}"
)
#: The shape of Llama Guard 3's: one user's turn that quotes the exchange, and the header of the verdict.
GUARD = (
    "{{ bos_token + " + HEADER.format("'user'") + " + 'Is it safe?\n\n' }}"
    "{% for m in messages %}{{ ('User: ' if m['role'] == 'user' else 'Agent: ') + m['content'] | trim + '\n\n' }}{% endfor %}"
    "{{ 'Say so.<|eot_id|>' + '<|start_header_id|>assistant<|end_header_id|>' }}"
)
CHATML = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe good on ' + strftime_now('%d %b %Y') + '.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>"


@pytest.fixture(scope="module")
def llama() -> PreTrainedTokenizerFast:
    return replica_tokenizer.build(format_ids=replica_models.format_ids())


@pytest.fixture
def chatml() -> PreTrainedTokenizerFast:
    """SmolLM2's kind: ChatML, no token that begins a text, verdicts with a space before them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(
        models.BPE({token: id for id, token in enumerate([*letters, "Ġyes", "Ġno", "maybe"])}, [], ignore_merges=True)
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ("<|im_start|>", "<|im_end|>")])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")


def texts(**changes: Any) -> ChatTexts:
    chat = {"prefix": "<|im_start|>user\n", "infix": "<|im_end|>\n<|im_start|>assistant\n"}
    values = {"policy": chat, "guard": {**chat, "suffix": "?"}, "safe": " yes", "unsafe": " no"}
    return ChatTexts.model_validate({**values, **changes})


def test_the_papers_formats_as_text_are_the_papers_ids(llama: PreTrainedTokenizerFast) -> None:
    paper = ChatFormats.load(PAPER, policy="llama3_policy")
    read = {
        name: {part: llama.decode(list(getattr(value, part))) for part in ("prefix", "infix", "suffix")}
        for name, value in (("policy", paper.policy), ("guard", paper.guard), ("mrm", paper.mrm))
    }
    assert read["policy"]["prefix"] == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    assert formats.of_texts(ChatTexts.model_validate(read), llama, llama) == paper
    template = {**read, "policy": {"template": True}}
    llama.chat_template = LLAMA_3
    assert formats.of_texts(ChatTexts.model_validate(template), llama, llama) == paper


def test_a_guards_template_is_around_an_exchange(llama: PreTrainedTokenizerFast) -> None:
    llama.chat_template = GUARD
    found = formats.of_texts(
        ChatTexts.model_validate({"policy": {"prefix": "Q"}, "guard": {"template": True, "suffix": "\n\n"}}), llama, llama
    )
    begin = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nIs it safe?\n\nUser: "
    assert llama.decode(list(found.guard.prefix)) == begin
    assert llama.decode(list(found.guard.infix)) == "\n\nAgent: "
    assert llama.decode(list(found.guard.suffix)) == f"\n\nSay so.<|eot_id|>{ASSISTANT}\n\n"
    assert (found.mrm.prefix, found.mrm.infix, found.mrm.suffix) == (found.guard.prefix, found.guard.infix, ())
    found.verify(llama)


def test_chatml_by_template_and_by_text(chatml: PreTrainedTokenizerFast) -> None:
    chatml.chat_template = CHATML
    by_text = formats.of_texts(texts(), chatml, chatml)
    by_text.verify(chatml)
    assert chatml.decode([by_text.safe_id]) == " yes" and chatml.decode([by_text.unsafe_id]) == " no"
    assert by_text.eos_id == chatml.convert_tokens_to_ids("<|im_end|>")
    assert chatml.decode(list(by_text.policy.prefix)) == "<|im_start|>user\n"
    template = formats.of_texts(texts(policy={"template": True}, guard={"template": True}), chatml, chatml)
    system = "<|im_start|>system\nBe good on 26 Jul 2024.<|im_end|>\n"  # the same ids on any day
    assert chatml.decode(list(template.policy.prefix)) == f"{system}<|im_start|>user\n"
    assert template.policy.infix == by_text.policy.infix
    assert chatml.decode(list(template.guard.suffix)) == "<|im_end|>\n<|im_start|>assistant\n"


def test_stored_words_of_verdicts_are_checked_against_the_ids(chatml: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    found = formats.of_texts(texts(), chatml, chatml)
    found.save(tmp_path)
    assert ChatFormats.load(tmp_path) == found
    with pytest.raises(ChatFormatError, match=r"verdict\.safe: id \d+ reads ' yes' in this tokenizer, not ' good'"):
        replace(found, safe=" good").verify(chatml)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"safe": "yes"}, r"chat_formats\.safe: 'yes' is 3 tokens here .*; ' yes' is one: write that"),
        ({"unsafe": "never"}, r"chat_formats\.unsafe: 'never' is 5 tokens here .*take a word that is one token"),
        ({"eos": "</s>"}, r"chat_formats\.eos: '</s>' is 4 tokens here"),
        (
            {"policy": {"template": True}},
            r"chat_formats\.policy\.template: the policy's tokenizer has no chat template; write prefix",
        ),
    ],
)
def test_what_a_tokenizer_cannot_say_is_refused(chatml: PreTrainedTokenizerFast, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ChatFormatError, match=message):
        formats.of_texts(texts(**change), chatml, chatml)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] }}", "does not write the prompt and the response exactly once"),
        (
            "{{ messages[0]['content'] * 2 }}{{ messages[1]['content'] }}",
            "does not write the prompt and the response exactly once",
        ),
        ("{{ messages[1]['content'] }}{{ messages[0]['content'] }}", "writes the response before the prompt"),
        ("{{ raise_exception('no') }}", r"cannot be applied \(TemplateError: no\)"),
        ("{{ messages[0]['content'] }}|{{ messages[1]['content'] }}", r"nothing follows the response.*add guard\.suffix"),
    ],
)
def test_a_template_that_is_no_format_is_refused(chatml: PreTrainedTokenizerFast, template: str, message: str) -> None:
    chatml.chat_template = template
    with pytest.raises(ChatFormatError, match=message):
        formats.of_texts(texts(guard={"template": True}), chatml, chatml)


def test_text_that_a_tokenizer_changes_is_refused(chatml: PreTrainedTokenizerFast) -> None:
    content = json.loads(chatml.backend_tokenizer.to_str())
    content["normalizer"] = {"type": "Lowercase"}
    lower = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), eos_token="<|im_end|>")
    with pytest.raises(ChatFormatError, match=r"policy\.prefix: the tokenizer reads 'Q: ' as 'q: '"):
        formats.of_texts(texts(policy={"prefix": "Q: "}), lower, lower)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guard": {"prefix": "Is it safe?"}}, r"guard\.suffix is empty, but the verdict is read behind it: write"),
        ({"policy": {"template": True, "infix": "x"}}, "template: true says what prefix and infix would"),
        ({"safe": "no", "unsafe": "no"}, "safe and unsafe are both 'no'"),
    ],
)
def test_formats_that_cannot_be_meant_are_refused_with_the_config(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        texts(**change)


def test_a_mistake_in_formats_names_its_own_key_alone() -> None:
    values = config.as_dict(config.load(Path(__file__).parents[2] / "config/paper.yaml"))
    values["models"]["hub"]["chat_formats"] = {"policy": {"template": True}, "guard": {"template": True, "sufix": "x"}}
    with pytest.raises(config.ConfigError) as caught:
        config.parse(values, "mine.yaml")
    assert "1 problem" in str(caught.value)
    assert "models.hub.chat_formats.guard.sufix: unknown key" in str(caught.value)
    values["models"]["hub"]["chat_formats"] = 3
    with pytest.raises(
        config.ConfigError, match=r"models\.hub\.chat_formats: formats are text .* or the name of a file .* not 3"
    ):
        config.parse(values, "mine.yaml")
