"""A trained multifurcation reward model, loaded and shared the way transformers' models are."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from saffron import cards, models, records
from saffron.config import Runtime
from saffron.models.hub import MODEL_PATTERNS
from saffron.mrm import card, release

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

#: What is fetched of a repository: an MRM's folder as it is stored here, or a release. No code, and tensors alone.
PATTERNS = [models.HEAD, *(f"merged/{pattern}" for pattern in MODEL_PATTERNS), *release.FILES]
Dtype = Literal["float64", "float32", "bfloat16"]
README = "README.md"


@dataclass(frozen=True)
class MRM:
    """M(s) of the paper's section 4.1: one call gives a reward for every possible next token.

    Attributes:
        model: causal LM whose logits are the rewards; the bias is part of its lm_head.
        unseen: bool [V], tokens that were never a target in training (Eq. 7); on the model's device.
    """

    model: PreTrainedModel
    unseen: Tensor

    @property
    def bias(self) -> Tensor:
        """[V] bias of the lm_head."""
        return self.model.get_output_embeddings().bias

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        base: str | Path | None = None,
        base_revision: str | None = None,
        released_bias: bool = True,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        dtype: Dtype | torch.dtype | None = None,
        token: str | bool | None = None,
    ) -> MRM:
        """Load an MRM: a folder as training or :meth:`save_pretrained` leaves it, or an adapter in the authors' layout.

        The bias, which the architecture has no place for, is put into the lm_head in both cases. Weights are read from
        safetensors, the two ``.pt`` files of a release as tensors alone; nothing is unpickled, no code of a repository runs.

        Args:
            name_or_path: a local folder, or an id on the hub.
            revision: commit, tag or branch of the id.
            base: of an adapter, the model it was trained on (default: what its ``adapter_config.json`` names).
            base_revision: of the base.
            released_bias: of an adapter, whether its bias is added. That of the authors' own release is an untrained
                initialisation which their code never adds: give False for what their code computes.
            device: where the model runs; ``auto`` takes a GPU if there is one.
            dtype: of the weights (default: as stored).
            token: for the hub, if not the one that is logged in.

        Raises:
            ModelError: if the folder holds neither, or what it holds cannot be read.
            ReleaseError: if an adapter is incomplete or not for this base.
            ValueError: for a device or dtype that is not offered.
            Errors of huggingface_hub: as it raises them.
        """
        folder = _folder(name_or_path, revision, PATTERNS, token)
        if (folder / models.HEAD).exists():
            return cls(*models.load_mrm(folder, _runtime(folder / "merged", device, dtype)))
        if missing := release.missing_files(folder):
            raise models.ModelError(
                f"{name_or_path}: no MRM here; it has neither {models.HEAD} beside merged/ nor a whole release, which lacks "
                f"{', '.join(missing)}"
            )
        if base is None:
            described = records.read_json(folder / release.ADAPTER_CONFIG)
            release.check_description(described, folder / release.ADAPTER_CONFIG)
            base, base_revision = described.get("base_model_name_or_path") or "", base_revision or described.get("revision")
        below = _folder(base, base_revision, MODEL_PATTERNS, token)
        found = release.read(folder, models.load_lm(below, _runtime(below, device, dtype)))
        bias = found.bias if released_bias else found.bias.new_zeros(found.bias.shape)
        models.add_bias(found.merged, bias)
        return cls(found.merged, found.unseen.to(found.merged.device))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``merged/``, ``head.safetensors`` (bias and unseen tokens) and, if there is no card yet, ``README.md``."""
        folder = Path(folder)
        with records.replacing_folder(folder / "merged") as temporary:
            _save_without_bias(self.model, temporary)
        models.save_mrm_head(folder, self.bias, self.unseen)
        if not (folder / README).exists():
            with records.replacing(folder / README) as written:
                written.write_text(card.plain(), "utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload MRM",
        token: str | bool | None = None,
    ) -> str:
        """Store it on the hub, as :meth:`save_pretrained` writes it; a card that is there already stays.

        Args:
            repo_id: ``owner/name``; made if it is not there.
            private: whether a new repository is private (None: as the owner's default is).
            revision: branch to commit to.
            commit_message: of the commit.
            token: for the hub, if not the one that is logged in.

        Returns:
            The commit's address.

        Raises:
            Errors of huggingface_hub: as it raises them.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        ignored = [README] if api.file_exists(repo_id, README, revision=revision) else None
        with tempfile.TemporaryDirectory(prefix="saffron-mrm-") as folder:
            self.save_pretrained(folder)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                ignore_patterns=ignored,
            )
        return str(commit.commit_url)


def _save_without_bias(model: Any, folder: Path) -> None:
    """``merged/`` has no bias, which would be dropped on loading by everything but us: it stands in the head's own file."""
    layer = model.get_output_embeddings()
    bias, layer.bias = layer.bias, None
    try:
        model.save_pretrained(folder)
    finally:
        layer.bias = bias


def _folder(name_or_path: str | Path, revision: str | None, patterns: list[str], token: str | bool | None) -> Path:
    """A local folder, or the snapshot of a repository on the hub."""
    from huggingface_hub import snapshot_download

    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if isinstance(name_or_path, Path) or not cards.is_hub_id(name_or_path):
        raise models.ModelError(f"{name_or_path or 'no base'}: neither a folder nor an id on the hub (owner/name)")
    return Path(snapshot_download(name_or_path, revision=revision, allow_patterns=patterns, token=token))


def _runtime(folder: Path, device: str, dtype: Dtype | torch.dtype | None) -> Runtime:
    """Where and in what dtype the model of a folder runs."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, not {device!r}")
    wanted = str(dtype).removeprefix("torch.")
    if dtype is None:
        try:
            config = records.read_json(folder / "config.json")
        except records.RecordError as error:
            raise models.ModelError(f"{folder}: no model here ({error})") from None
        wanted = config.get("dtype") or config.get("torch_dtype") or "float32"
    if wanted not in get_args(Dtype):
        where = "dtype" if dtype is not None else f"the weights of {folder} are {wanted}: dtype"
        raise ValueError(f"{where} must be one of {', '.join(get_args(Dtype))}, not {wanted}")
    return Runtime.model_validate({"device": device, "dtype": wanted})
