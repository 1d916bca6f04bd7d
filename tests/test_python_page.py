"""Every code block of docs/python.md, run in its order by one process, on tiny models where the page has others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from replica import models as replica
from torch import nn
from transformers import AutoModelForCausalLM

from saffron import models
from saffron.chat import ChatFormats

PAGE = Path(__file__).parents[1] / "docs/python.md"
VOCABULARY = 128_256
#: Stands in for the hub that the page pushes to.
PRELUDE = """
import huggingface_hub


class HfApi(huggingface_hub.HfApi):
    def create_repo(self, repo_id, **_):
        return type("Address", (), {"repo_id": repo_id})

    def file_exists(self, *_, **__):
        return False

    def upload_folder(self, *, repo_id, folder_path, **_):
        return type("Commit", (), {"commit_url": f"https://hub.example/{repo_id}"})


huggingface_hub.HfApi = HfApi
"""
#: What must hold once the page has run.
CHECKS = """
assert len(answers) == 2 and outputs.shape[0] == 2
assert [len(one) for one in ids] == [16, 16] or all(one[-1] == formats.eos_id for one in ids if len(one) < 16)
assert all(tokens.shape[1] > inputs["input_ids"].shape[1] for tokens in (one, best, rebase, beam, ahead, found.sequences))
assert rewards.shape == (2, 128_256) and torch.equal(again.unseen, mrm.unseen) and again.bias.abs().max() > 1
assert not released.bias.any() and address == "https://hub.example/someone/my-mrm"
assert own.guard.suffix and own.eos_id == tokenizer.eos_token_id
print("all blocks have run")
"""


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def adapted(guard: Path) -> Any:
    """The guard with LoRA that is not zero."""
    lora = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(guard), lora)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page reads: a run's models, a release, and a hub's cache that holds the two models it is for."""
    root = tmp_path_factory.mktemp("page")
    replica.write(root / "made")
    policy, guard = root / "made/policy", root / "made/guard"
    bias, unseen = torch.linspace(-3, 3, VOCABULARY), torch.arange(VOCABULARY) >= 128_000

    run = root / "data/sandbox"
    for role in ("policy", "guard"):
        shutil.copytree(root / "made" / role, run / "models/seed0" / role)
    shutil.copytree(policy, run / "models/tokenizer", ignore=shutil.ignore_patterns("*.safetensors"))
    ChatFormats.load(replica.CHAT_FORMATS, policy="llama32_policy").save(run / "models/tokenizer")
    adapted(guard).merge_and_unload().save_pretrained(run / "mrm/seed0/default/merged")
    models.save_mrm_head(run / "mrm/seed0/default", bias, unseen)

    release = root / "models/Saffron-1-1B"
    adapted(guard).save_pretrained(release)
    torch.save(nn.Parameter(bias.bfloat16()), release / "lm_head_bias.pt")
    torch.save(unseen, release / "unseen_mask.pt")

    for name, made in (("Llama-3.2-1B-Instruct", policy), ("Llama-Guard-3-1B", guard)):
        cached = root / "hub" / f"models--meta-llama--{name}"
        shutil.copytree(made, cached / "snapshots" / ("0" * 40))
        (cached / "refs").mkdir()
        (cached / "refs/main").write_text("0" * 40)
    return root


def test_the_page_has_its_blocks() -> None:
    assert len(blocks()) == PAGE.read_text("utf-8").count("```python") >= 7


def test_every_block_of_the_page_runs(folder: Path) -> None:
    script = folder / "page.py"
    script.write_text("\n".join([PRELUDE, *blocks(), CHECKS]))
    offline = {"HF_HOME": str(folder), "HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env={**os.environ, **offline}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip().endswith("all blocks have run")
    assert "Saffron-1" in result.stderr, "the page shows the steps of a search"
