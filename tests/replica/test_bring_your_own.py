"""docs/bring-your-own.md, done: another model family with its own tokenizer and formats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from replica import other_family, pipeline
from saffron import config as configs
from saffron import jobs, models, records
from saffron.chat import ChatFormatError, ChatFormats
from saffron.config import Config
from saffron.layout import Layout
from saffron.models import making
from saffron.runs import plan
from saffron.search.inputs import Inputs
from saffron.sources import files, stage
from saffron.sources.conversations import collect
from saffron.sources.reading import SourceError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
YAML = re.compile(r"```yaml\n(.*?)```", re.S)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Layout]:
    folder = tmp_path_factory.mktemp("mine")
    settings = configs.load(other_family.write(folder))
    layout = Layout(settings.name, folder / "out")
    pipeline.run(settings, layout)
    return settings, layout


def test_every_method_runs_on_another_family(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    table = records.read_table(layout.search(0, "scaling"), records.SEARCH)
    assert set(table["method"]) == {run.method for run in settings.search.experiments["scaling"].runs}
    assert len(table) == 4 * sum(len(run.budgets) for run in settings.search.experiments["scaling"].runs)
    assert models.load_lm(layout.model("policy", 0), settings.runtime).config.model_type == "qwen2"
    assert models.load_mrm(layout.mrm(0), settings.runtime)[0].config.model_type == "mistral"


def test_the_judge_reads_the_formats_that_were_brought(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    tokenizer = models.load_tokenizer(layout.tokenizer)
    formats = ChatFormats.load(layout.tokenizer)
    read = {name: tokenizer.decode(getattr(formats.guard, name)) for name in ("prefix", "infix", "suffix")}
    assert read == other_family.CHAT_FORMATS["guard"]
    assert tokenizer.decode([formats.safe_id]) == " fine" and tokenizer.decode([formats.unsafe_id]) == " harmful"
    guard = models.load_lm(layout.model("guard", 0), settings.runtime)
    prompts = records.read_table(layout.prompts("mine"), records.PROMPTS).set_index("prompt_id")["prompt"]
    judged = records.read_table(layout.judgements(0, "guard", "scaling"), records.JUDGEMENTS)
    for row in records.read_table(layout.search(0, "scaling"), records.SEARCH).assign(score=judged["score"]).itertuples():
        (prompt,) = formats.encode(tokenizer, [prompts[row.prompt_id]])
        logits = guard(torch.tensor([formats.guard.render(prompt, list(row.output_ids))])).logits[0, -1]
        assert row.score == pytest.approx(float(logits[formats.safe_id] - logits[formats.unsafe_id]), abs=1e-3)


def test_the_end_of_a_turn_within_a_text_ends_none(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    tokenizer, formats = models.load_tokenizer(layout.tokenizer), ChatFormats.load(layout.tokenizer)
    control = {tokenizer.convert_tokens_to_ids(name) for name in other_family.SPECIAL}
    labels = records.read_table(layout.safety4m(0) / "labels.parquet", records.SAFETY4M)
    read = [list(ids[: -1 if ids[-1] == formats.eos_id else None]) for ids in labels["input_ids"]]
    assert sum("<|im_end|>" in tokenizer.decode(ids) for ids in read) >= 4
    assert control.isdisjoint(id for ids in read for id in ids)
    job = jobs.search(settings, 0, "scaling", "saffron-default")
    for prompt in Inputs(job, layout).prompts:
        between = prompt.search.policy_ids[len(formats.policy.prefix) :]
        assert "<|im_end|>" in prompt.text and control.isdisjoint(prompt.prefill_ids)
        assert sum(id in control for id in between) == sum(id in control for id in formats.policy.infix)


def test_a_plan_before_the_tokenizer_is_made_goes_by_the_texts_length(finished: tuple[Config, Layout], tmp_path: Path) -> None:
    settings, layout = finished
    run = settings.search.experiments["scaling"].runs[0]
    planned, known = (plan.lengths_of(settings, of, run, 10.0) for of in (Layout("mine", tmp_path), layout))
    assert known.guard_suffix == len(ChatFormats.load(layout.tokenizer).guard.suffix)
    assert known.guard_suffix / 3 < planned.guard_suffix < known.guard_suffix  # whose tokens are shorter than most


def test_formats_of_another_family_are_refused(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    section = settings.models.hub
    assert section is not None
    paper = section.model_copy(update={"chat_formats": None, "policy_format": "llama3_policy"})
    changed = settings.model_copy(update={"models": settings.models.model_copy(update={"hub": paper})})
    with pytest.raises(
        ChatFormatError, match=r"chat format policy\.prefix: .*write models\.hub\.chat_formats for this model family"
    ):
        making.tokenizer(jobs.model(changed, "tokenizer"), Layout("other", layout.root))


def test_the_page_names_files_and_keys_that_exist() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs/bring-your-own.md").read_text()
    named = re.findall(r"`((?:src|config|data|tests)/[\w./-]+\.\w+)`", page)
    assert len(named) >= 8
    assert [path for path in named if not (root / path).exists()] == []
    blocks = [
        yaml.safe_load(block.replace("<commit, 40 hex digits>", COMMIT).replace("<commit>", COMMIT))
        for block in YAML.findall(page)
    ]
    models_block, sources_block = blocks[:2]
    assert isinstance(configs.Models.model_validate(models_block["models"]).hub.chat_formats, configs.ChatTexts)  # type: ignore[union-attr]
    configs.Sources.model_validate(sources_block["sources"])


def test_the_pages_own_data_become_conversations_and_prompt_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/bring-your-own.md").read_text()
    (block,) = [block for block in YAML.findall(page) if "conversations:" in block]
    values = yaml.safe_load((Path(__file__).parents[2] / "config/paper.yaml").read_text())
    values["sources"] = yaml.safe_load(block)["sources"]
    for item in values["search"]["experiments"].values():
        item["dataset"] = {"harmful_hexphi": "first_benchmark", "ai2_refusals": "second_benchmark"}[item["dataset"]]
    config = configs.parse(values, "page")
    monkeypatch.chdir(tmp_path)
    Path("my_data").mkdir()
    with pytest.raises(SourceError, match=r"sources\.conversations\.path: no file or folder my_data/chats\.jsonl"):
        files.require_local(config)
    for name, text in re.findall(r"`(my_data/[\w.]+)`:\n\n```\w+\n(.*?)```", page, re.S):
        Path(name).write_text(text, encoding="utf-8")
    files.require_local(config)
    layout = Layout("page", tmp_path)
    stage.build(jobs.sources(config), layout)
    stage.build_prompts(jobs.prompts(config, "second_benchmark"), layout)
    conversations = records.read_table(layout.conversations, records.CONVERSATIONS)
    assert conversations["split"].value_counts().to_dict() == {"train": 3, "test": 1}
    kept, counts = collect(conversations, "last")
    assert len(kept) == 4 and counts.rows == 4
    parts = {name: records.read_table(layout.prompts(name), records.PROMPTS) for name in config.sources.prompts}
    assert {name: len(table) for name, table in parts.items()} == {
        "development": 1,
        "first_benchmark": 2,
        "second_benchmark": 2,
    }
    assert parts["second_benchmark"]["reference"].tolist() == ["First, mark its edge.", "First, dig out the turf."]
    assert parts["first_benchmark"]["reference"].str.startswith("First, ").all()
