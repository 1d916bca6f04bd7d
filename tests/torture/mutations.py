"""Shipped configs with odd values: one clear message, or a config whose whole analysis runs on made-up results."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import drawing
import hypothesis
import test_any_config
from hypothesis import strategies as st

from torture.parts import Fault, Part

NAMES = sorted(test_any_config.CONFIGS)


def attempt(_scratch: Path) -> Callable[[int], str]:
    """Each try mutates one shipped config, all of them in turn."""

    def once(seed: int) -> str:
        rng = random.Random(seed)
        _, told, values = test_any_config.mutation(rng.choice, [NAMES[seed % len(NAMES)]])
        outcome = ""

        # The machinery tells hypothesis what it does, so it runs inside of it; it draws nothing.
        @hypothesis.settings(
            max_examples=1, database=None, phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(st.none())
        def inside(_: None) -> None:
            nonlocal outcome
            config = test_any_config.accepted(values)
            if config is not None:
                test_any_config.to_the_end(config)
            outcome = "refused in one message" if config is None else "analysed to the end"

        try:
            with drawing.small():
                inside()
        except Exception as error:
            raise Fault(f"{told}: {type(error).__name__}: {error}") from error
        return outcome

    return once


PART = Part("configs", 2000 * len(NAMES), attempt)
