"""How numbers are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import (
    Field,
)

from saffron.section import Section


class Runtime(Section):
    """How numbers are computed. Results are identical for any number of jobs or shards, not across these values."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models run; auto takes a GPU if there is one")
    dtype: Literal["float64", "float32", "bfloat16", "auto"] = Field(
        "float32",
        description="dtype of weights and KV cache; auto: bfloat16 where the device has the instructions and is measured to be "
        "faster with it, else float32, chosen once per run and stored in data/<name>/dtype.json",
    )
    torch_threads: int = Field(1, ge=1, description="torch threads per process (part of what makes bytes reproducible)")

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """An environment with what numerical libraries read once, when they are imported."""
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.torch_threads))
        # Spinning threads steal cores from the jobs beside this one.
        return {"OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false", **given, **counts}
