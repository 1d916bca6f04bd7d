"""Where every stage's files lie. The one place that knows paths; rules and commands use the same names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


def shipped(name: str) -> Path:
    """A folder of the project's own: that of the checkout this package lies in, else the copy that a wheel holds.

    Args:
        name: as in a checkout: ``notebooks``, or one below ``data/reference``.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parents[1] / name
    return checkout if checkout.is_dir() else package / "data" / Path(name).name


#: The paper's published numbers, its chat formats and claims.
PAPER = shipped("data/reference/paper")


@dataclass(frozen=True)
class Layout:
    """Paths of one config, relative to the project root (or absolute if ``root`` is)."""

    name: str
    root: Path = Path()

    @property
    def data(self) -> Path:
        """``data/<config>``."""
        return self.root / "data" / self.name

    @property
    def figures(self) -> Path:
        """``figures/<config>``."""
        return self.root / "figures" / self.name

    @property
    def sources(self) -> Path:
        """Conversations, prompt sets and (sandbox) corpora."""
        return self.data / "sources"

    @property
    def conversations(self) -> Path:
        """records.CONVERSATIONS."""
        return self.sources / "conversations.parquet"

    @property
    def corpus(self) -> Path:
        """records.CORPUS (sandbox only)."""
        return self.sources / "corpus.parquet"

    @property
    def sources_record(self) -> Path:
        """Origin, licence, seeds, counts and sha256 of the tables."""
        return self.sources / "sources.json"

    def prompts_record(self, dataset: str) -> Path:
        """Origin, licence, counts and sha256 of a prompt set that has a source of its own."""
        return self.prompts(dataset).with_suffix(".json")

    def prompts(self, dataset: str) -> Path:
        """records.PROMPTS of one prompt set."""
        return self.sources / "prompts" / f"{dataset}.parquet"

    @property
    def tokenizer(self) -> Path:
        """Tokenizer files and chat_formats.json, shared by policy, guard and MRM."""
        return self.data / "models" / "tokenizer"

    def model(self, which: str, seed: int) -> Path:
        """A ``save_pretrained`` folder: policy, guard, deepalign or other_guard."""
        return self.data / "models" / f"seed{seed}" / which

    def held_out(self, which: str, seed: int) -> Path:
        """What a model that was trained from the hub's does on the test split, in its folder (:mod:`saffron.models.trained`)."""
        return self.model(which, seed) / "held_out.json"

    def safety4m(self, seed: int) -> Path:
        """Folder with labels.parquet (records.SAFETY4M), unseen_mask.safetensors, card.json and README.md."""
        return self.data / "safety4m" / f"seed{seed}"

    def safety4m_shard(self, seed: int, shard: int) -> Path:
        """records.SAFETY4M of one shard."""
        return self.safety4m(seed) / f"shard{shard}.parquet"

    def mrm(self, seed: int, variant: str = "default") -> Path:
        """Folder with adapter/, head.safetensors, merged/, losses.parquet, evaluation.parquet, evaluation.json, README.md."""
        return self.data / "mrm" / f"seed{seed}" / variant

    def search(self, seed: int, experiment: str) -> Path:
        """records.SEARCH of one experiment, all runs."""
        return self.data / "search" / f"seed{seed}" / f"{experiment}.parquet"

    def judgements(self, seed: int, judge: str, experiment: str) -> Path:
        """records.JUDGEMENTS of one experiment's outputs by one judge of the config."""
        return self.data / "judge" / f"seed{seed}" / judge / f"{experiment}.parquet"

    def search_run(self, seed: int, experiment: str, run: str, shard: int) -> Path:
        """records.SEARCH of one shard of one run; ``run`` is config.Run.key."""
        return self.data / "search" / f"seed{seed}" / experiment / f"{run}.shard{shard}.parquet"

    def search_trees(self, seed: int) -> Path:
        """The recorded search of Figures 1 and 3."""
        return self.data / "search" / f"seed{seed}" / "trees.json"

    @property
    def analysis(self) -> Path:
        """JSON and parquet read by the notebooks."""
        return self.data / "analysis"

    @property
    def benchmarks(self) -> Path:
        """Times and memory of every job, by stage: ``<job>.tsv`` from Snakemake, ``<job>.cpu.json`` and ``.gpu.json`` from it."""
        return self.data / "benchmarks"

    @property
    def provenance(self) -> Path:
        """Versions, commit, seeds, hardware and the sha256 of every output."""
        return self.data / "provenance.json"

    @property
    def dtype_record(self) -> Path:
        """What ``runtime.dtype: auto`` chose for this run, and why."""
        return self.data / "dtype.json"

    @property
    def speed(self) -> Path:
        """What the last plan on a CPU measured."""
        return self.data / "speed.json"

    @property
    def packages(self) -> Path:
        """Models from Python packages, dequantised; the same for all configs."""
        return self.root / "data" / ".packages"

    @property
    def runtimes(self) -> Path:
        """Times of every stage."""
        return self.data / "runtimes.json"
