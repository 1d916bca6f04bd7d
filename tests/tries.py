"""How many examples a property is tried with: a few each time the tests run, more for whoever looks for a fault.

SAFFRON_TRIES=10 python -m pytest tests/methods --hypothesis-seed=1
"""

from __future__ import annotations

import os


def tries(number: int) -> int:
    """So many examples, times SAFFRON_TRIES of the environment."""
    return number * int(os.environ.get("SAFFRON_TRIES", "1"))
