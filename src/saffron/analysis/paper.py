"""The paper's published numbers, as kept in ``data/reference/paper``."""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd
import yaml

from saffron.layout import PAPER
from saffron.records import RecordError
from saffron.table import Table


@cache
def _read(name: str) -> pd.DataFrame:
    path = PAPER / f"{name}.csv"
    if not path.exists():
        raise RecordError(f"{path}: missing; restore it from the repository")
    return pd.read_csv(path)


def table(name: str) -> pd.DataFrame:
    """One reference table: figure2, figure2_fits, figure4b_summary, table1, table2 or table3.

    Raises:
        RecordError: if the file is missing.
    """
    return _read(name).copy()


def claims() -> list[dict[str, Any]]:
    """Every checkable statement of the paper with its test (``claims.yaml``)."""
    return yaml.safe_load((PAPER / "claims.yaml").read_text("utf-8"))


def headlines() -> list[str]:
    """Ids of the claims that are shown first: those marked ``headline`` in ``claims.yaml``, in its order."""
    return [claim["id"] for claim in claims() if claim.get("headline", False)]


def differences() -> list[dict[str, Any]]:
    """Where the paper and its released code differ, and which side is followed (``differences.yaml``)."""
    return yaml.safe_load((PAPER / "differences.yaml").read_text("utf-8"))


def differences_table() -> str:
    """The differences as a Markdown table: topic, paper, released code, what is followed here."""
    rows = tuple(tuple(found[key] for key in ("topic", "paper", "released", "followed")) for found in differences())
    return Table(("topic", "paper", "released code and artefacts", "followed here"), rows).markdown_rows()
