"""Typed configuration: WHAT to run.

One YAML file describes a whole replication (``config/<name>.yaml``). It is validated here before anything runs: an
unknown key, a wrong type or an impossible combination ends in one :class:`ConfigError` that names the file, the key and
the remedy. The JSON schema in ``workflow/schemas/`` and the key table in ``config/README.md`` are generated from these
classes, so every field carries a description.

Sections are named after the stages that read them; a stage reads its own section, ``runtime`` and nothing else.
"""

from saffron.config.analysis import Ablation, Analysis, Report
from saffron.config.base import ConfigError, Convention
from saffron.config.judges import COLUMNS, Judge
from saffron.config.loading import as_dict, load, parse
from saffron.config.models import (
    Architecture,
    ChatText,
    ChatTexts,
    GuardFile,
    HubModels,
    ModelFile,
    Models,
    Optimisation,
    PackageModel,
    PolicySafety,
    SandboxModels,
    TruncatedGuard,
)
from saffron.config.mrm import MRM, LoraModule, MRMVariant
from saffron.config.runtime import Runtime
from saffron.config.safety4m import Safety4M
from saffron.config.search import LARGEST_BUDGET, SETTINGS, Experiment, Group, Match, Run, Search
from saffron.config.sources import (
    ALLOW_DROPPED,
    ORIGIN_KEYS,
    SANDBOX_BENIGN,
    SANDBOX_SETS,
    Conversations,
    HubDataset,
    Origin,
    PromptSet,
    Rows,
    SandboxSources,
    Sources,
    Split,
)
from saffron.config.whole import Config
from saffron.section import HubFile

__all__ = [
    "ALLOW_DROPPED",
    "COLUMNS",
    "LARGEST_BUDGET",
    "MRM",
    "ORIGIN_KEYS",
    "SANDBOX_BENIGN",
    "SANDBOX_SETS",
    "SETTINGS",
    "Ablation",
    "Analysis",
    "Architecture",
    "ChatText",
    "ChatTexts",
    "Config",
    "ConfigError",
    "Convention",
    "Conversations",
    "Experiment",
    "Group",
    "GuardFile",
    "HubDataset",
    "HubFile",
    "HubModels",
    "Judge",
    "LoraModule",
    "MRMVariant",
    "Match",
    "ModelFile",
    "Models",
    "Optimisation",
    "Origin",
    "PackageModel",
    "PolicySafety",
    "PromptSet",
    "Report",
    "Rows",
    "Run",
    "Runtime",
    "Safety4M",
    "SandboxModels",
    "SandboxSources",
    "Search",
    "Sources",
    "Split",
    "TruncatedGuard",
    "as_dict",
    "load",
    "parse",
]
