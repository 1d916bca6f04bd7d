"""docs/bring-your-own.md, done: another model family with its own tokenizer and formats."""

from __future__ import annotations

import json
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
from saffron.safety4m.conversations import collect
from saffron.sources import files, stage
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
    assert formats == other_family.chat_formats(tokenizer)
    guard = models.load_lm(layout.model("guard", 0), settings.runtime)
    prompts = records.read_table(layout.prompts("mine"), records.PROMPTS).set_index("prompt_id")["prompt"]
    for row in records.read_table(layout.search(0, "scaling"), records.SEARCH).itertuples():
        prompt = tokenizer.encode(prompts[row.prompt_id], add_special_tokens=False)
        logits = guard(torch.tensor([formats.guard.render(prompt, list(row.output_ids))])).logits[0, -1]
        assert row.judge_reward == pytest.approx(float(logits[formats.safe_id] - logits[formats.unsafe_id]), abs=1e-3)


def test_formats_of_another_family_are_refused(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    section = settings.models.hub
    assert section is not None
    paper = section.model_copy(update={"chat_formats": None, "policy_format": "llama3_policy"})
    changed = settings.model_copy(update={"models": settings.models.model_copy(update={"hub": paper})})
    with pytest.raises(ChatFormatError, match=r"chat format policy\.prefix: .*write chat_formats\.json for this model family"):
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
    configs.Models.model_validate(models_block["models"])
    configs.Sources.model_validate(sources_block["sources"])
    ChatFormats.of(json.loads(re.search(r"```json\n(.*?)```", page, re.S)[1]), where="the page")  # type: ignore[index]


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
        Path(name).write_text(text)
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
