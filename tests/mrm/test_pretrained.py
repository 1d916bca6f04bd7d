"""An MRM by the ways of the hub: loaded with its bias from every layout, saved, and pushed to a hub that is made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tests.mrm.examples import VOCABULARY, tiny_guard
from torch import nn

import saffron
from saffron import models
from saffron.models import ModelError
from saffron.mrm.release import ReleaseError

IDS = torch.arange(12, 20)[None]


def unseen_tokens() -> torch.Tensor:
    unseen = torch.zeros(VOCABULARY, dtype=torch.bool)
    unseen[-5:] = True
    return unseen


@pytest.fixture
def guard(tmp_path: Path) -> Path:
    tiny_guard().save_pretrained(tmp_path / "guard")
    return tmp_path / "guard"


@pytest.fixture
def release(tmp_path: Path, guard: Path) -> Path:
    """An adapter in the layout of the authors' release, with a bias that shows."""
    folder = tmp_path / "release"
    lora = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    base = models.load_lm(guard, saffron_runtime())
    adapted: Any = get_peft_model(base, lora)
    adapted.peft_config["default"].base_model_name_or_path = str(guard)
    adapted.save_pretrained(folder)
    torch.save(nn.Parameter(torch.linspace(-3, 3, VOCABULARY).bfloat16()), folder / "lm_head_bias.pt")
    torch.save(unseen_tokens(), folder / "unseen_mask.pt")
    return folder


def saffron_runtime() -> Any:
    from saffron.config import Runtime

    return Runtime(device="cpu")


def by_peft(guard: Path, release: Path) -> torch.Tensor:
    """Logits of the adapter merged by peft itself, without any bias."""
    merged: Any = PeftModel.from_pretrained(models.load_lm(guard, saffron_runtime()), str(release)).merge_and_unload()
    return merged.eval()(IDS).logits


def bias_of(release: Path) -> torch.Tensor:
    return torch.load(release / "lm_head_bias.pt", weights_only=True).detach().float()


def test_an_adapter_is_merged_into_its_base_and_its_bias_added(guard: Path, release: Path) -> None:
    mrm = saffron.MRM.from_pretrained(release, device="cpu")
    torch.testing.assert_close(mrm.model(IDS).logits, by_peft(guard, release) + bias_of(release), rtol=1e-5, atol=1e-5)
    assert torch.equal(mrm.bias, bias_of(release)) and torch.equal(mrm.unseen, unseen_tokens())
    assert not mrm.model.training and not any(parameter.requires_grad for parameter in mrm.model.parameters())
    left_out = saffron.MRM.from_pretrained(str(release), base=guard, released_bias=False, device="cpu")
    torch.testing.assert_close(left_out.model(IDS).logits, by_peft(guard, release), rtol=1e-5, atol=1e-5)
    assert not left_out.bias.any()


def test_what_is_saved_is_loaded_again_with_its_bias(release: Path, tmp_path: Path) -> None:
    mrm = saffron.MRM.from_pretrained(release, device="cpu")
    before = mrm.model(IDS).logits
    folder = tmp_path / "saved"
    mrm.save_pretrained(folder)
    assert torch.equal(mrm.model(IDS).logits, before), "saving left the model as it was"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "head.safetensors", "merged"]
    assert not [name for name in load_file(folder / "merged/model.safetensors") if name.endswith("bias")]
    again = saffron.MRM.from_pretrained(folder, device="cpu")
    assert torch.equal(again.model(IDS).logits, before) and torch.equal(again.unseen, mrm.unseen)
    ours, unseen = models.load_mrm(folder, saffron_runtime())  # as the pipeline loads one
    assert torch.equal(ours(IDS).logits, before) and torch.equal(unseen, mrm.unseen)
    halved = saffron.MRM.from_pretrained(folder, device="cpu", dtype=torch.bfloat16)
    assert halved.model.dtype == halved.bias.dtype == torch.bfloat16 and halved.bias.abs().max() > 2
    (folder / "README.md").write_text("mine")
    mrm.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_a_loaded_mrm_guides_a_search(release: Path) -> None:
    policy, mrm = tiny_guard(), saffron.MRM.from_pretrained(release, device="cpu")
    given: dict[str, Any] = {"width": 3, "max_new_tokens": 5, "eos_token_id": 3}
    output = policy.generate(IDS, custom_generate=saffron.generate, mrm=mrm, pad_token_id=0, **given)
    unseen = mrm.unseen.clone()
    assert output[0, IDS.shape[1] :].tolist() == saffron.search_tokens(policy, mrm.model, IDS.tolist(), unseen=unseen, **given)[0]
    without = policy.generate(IDS, custom_generate=saffron.generate, mrm=mrm.model, pad_token_id=0, **given)
    assert not torch.equal(output, without), "the unseen tokens make no difference"


# ------------------------------------------------------------------------------------------------------------- the hub
class Hub:
    """Repositories as folders; what huggingface_hub is asked for is noted."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[tuple[Any, ...]]()

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str], token: Any) -> str:
        self.asked.append((repo_id, revision))
        source, target = self.root / repo_id, self.root / "cache" / repo_id
        for path in source.rglob("*"):
            name = path.relative_to(source)
            if path.is_file() and any(name.match(pattern) for pattern in allow_patterns):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / name)
        return str(target)

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any:
        assert exist_ok
        self.asked.append(("create", repo_id, private))
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        return type("Address", (), {"repo_id": repo_id})

    def file_exists(self, repo_id: str, name: str, *, revision: str | None) -> bool:
        return (self.root / repo_id / name).exists()

    def upload_folder(self, *, repo_id: str, folder_path: str, ignore_patterns: list[str] | None, **_: Any) -> Any:
        ignored = shutil.ignore_patterns(*ignore_patterns or ())
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True, ignore=ignored)
        return type("Commit", (), {"commit_url": f"https://hub.example/{repo_id}/commit/0"})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: made)
    return made


def test_pushed_and_loaded_from_the_hub_it_is_the_same(release: Path, hub: Hub) -> None:
    mrm = saffron.MRM.from_pretrained(release, device="cpu")
    assert mrm.push_to_hub("someone/an-mrm", private=True) == "https://hub.example/someone/an-mrm/commit/0"
    (hub.root / "someone/an-mrm/evil.py").write_text("raise SystemExit")
    again = saffron.MRM.from_pretrained("someone/an-mrm", revision="v1", device="cpu")
    assert hub.asked == [("create", "someone/an-mrm", True), ("someone/an-mrm", "v1")]
    assert torch.equal(again.model(IDS).logits, mrm.model(IDS).logits)
    assert not (hub.root / "cache/someone/an-mrm/evil.py").exists()
    (hub.root / "someone/an-mrm" / "README.md").write_text("the owner's card")
    mrm.push_to_hub("someone/an-mrm")
    assert (hub.root / "someone/an-mrm" / "README.md").read_text() == "the owner's card"


def test_a_release_on_the_hub_is_read_with_the_base_it_names(guard: Path, release: Path, hub: Hub) -> None:
    described = json.loads((release / "adapter_config.json").read_text())
    described |= {"base_model_name_or_path": "someone/a-guard", "revision": "r2"}
    (release / "adapter_config.json").write_text(json.dumps(described))
    shutil.copytree(guard, hub.root / "someone/a-guard")
    shutil.copytree(release, hub.root / "someone/a-release")
    mrm = saffron.MRM.from_pretrained("someone/a-release", revision="r1", device="cpu")
    assert hub.asked == [("someone/a-release", "r1"), ("someone/a-guard", "r2")]
    assert torch.equal(mrm.bias, bias_of(release))


def test_the_card_is_one_that_the_hub_reads(release: Path, tmp_path: Path) -> None:
    saffron.MRM.from_pretrained(release, device="cpu").save_pretrained(tmp_path / "saved")
    read = metadata_load(tmp_path / "saved" / "README.md")
    assert read == {"library_name": "transformers", "tags": ["reward-model", "safety", "peft"]}
    assert "saffron.MRM.from_pretrained" in ModelCard.load(tmp_path / "saved" / "README.md").text


# ------------------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("name", ["lm_head_bias.pt", "unseen_mask.pt", "adapter_model.safetensors"])
def test_a_release_without_one_of_its_files_is_refused(release: Path, name: str) -> None:
    (release / name).unlink()
    with pytest.raises(ModelError, match=f"no MRM here; .* lacks {name}"):
        saffron.MRM.from_pretrained(release, device="cpu")


def test_a_merged_model_without_its_head_is_refused(release: Path, tmp_path: Path) -> None:
    saffron.MRM.from_pretrained(release, device="cpu").save_pretrained(tmp_path / "saved")
    (tmp_path / "saved/head.safetensors").unlink()
    with pytest.raises(ModelError, match=r"neither head\.safetensors beside merged/ nor a whole release"):
        saffron.MRM.from_pretrained(tmp_path / "saved", device="cpu")


def test_what_is_no_folder_and_no_id_is_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder nor an id on the hub"):
        saffron.MRM.from_pretrained(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"\./absent: neither a folder nor an id"):
        saffron.MRM.from_pretrained("./absent")
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, not 'tpu'"):
        saffron.MRM.from_pretrained(release, device="tpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dtype must be one of float64, float32, bfloat16, not float16"):
        saffron.MRM.from_pretrained(release, dtype=torch.float16)


def test_a_base_of_another_shape_is_refused(release: Path, tmp_path: Path) -> None:
    from replica.models import random_model

    random_model(0, tied=False, vocabulary=VOCABULARY, layers=3).save_pretrained(tmp_path / "other")
    with pytest.raises(ReleaseError, match="it is another model's adapter"):
        saffron.MRM.from_pretrained(release, base=tmp_path / "other", device="cpu")


def test_a_release_that_pickles_more_than_tensors_is_refused(release: Path) -> None:
    torch.save({"path": Path("x")}, release / "lm_head_bias.pt")
    with pytest.raises(ReleaseError, match="not a file of tensors alone"):
        saffron.MRM.from_pretrained(release, device="cpu")
