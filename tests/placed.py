"""Where models and tensors of the tests lie: ``SAFFRON_TEST_DEVICE=cuda`` puts them on a GPU; the code under test is not told."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

DEVICE = torch.device(os.environ.get("SAFFRON_TEST_DEVICE", "cpu"))
tensor: Callable[..., Tensor] = partial(torch.tensor, device=DEVICE)
arange: Callable[..., Tensor] = partial(torch.arange, device=DEVICE)
full: Callable[..., Tensor] = partial(torch.full, device=DEVICE)
ones: Callable[..., Tensor] = partial(torch.ones, device=DEVICE)
zeros: Callable[..., Tensor] = partial(torch.zeros, device=DEVICE)
