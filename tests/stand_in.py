"""A device without a GPU: tensors with values that refuse to meet those of the CPU, as on CUDA, and count what crosses over.

A :class:`DeviceTensor` says that it is on the device ``meta``; its numbers lie in a tensor of the CPU that only the operations of
:class:`StandIn` see. So code takes its way for devices that are not the CPU, and a tensor that was made in the wrong place fails
at its first operation. What CUDA allows is allowed: a number without dimensions in an elementwise operation, indices on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
DEVICE = torch.device("meta")
#: Operations that copy from one device to another.
COPIES = (aten._to_copy, aten.copy_, aten.copy)
#: Operations whose indices may lie on the CPU; they are then copied to the device.
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
#: Operations that read a number, or whose result's shape depends on a tensor's contents: the host waits for them.
READS = (
    *(aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.allclose, aten.nonzero, aten.nonzero_numpy, aten.argwhere),
    *(aten.masked_select, aten._unique, aten._unique2, aten.unique_consecutive, aten.unique_dim, aten.bincount),
)


class WrongDeviceError(RuntimeError):
    """A tensor of the CPU and one of the device in one operation."""


class DeviceTensor(torch.Tensor):
    """A tensor on the stand-in device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        """On the device, with the numbers of ``held`` [any shape], which views and in-place operations share."""
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE, requires_grad=False
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Outside of :class:`StandIn` there is no such device."""
        raise WrongDeviceError(f"{function} outside of the stand-in")

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"


class StandIn(TorchDispatchMode):
    """The device; operations on its tensors work within.

    To be entered by :func:`stand_in`.

    Attributes:
        reads: names of operations that made the host wait for the device, in order.
        uploads: names of operations that copied from the CPU to the device, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.uploads: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation: check where its tensors are, compute it on the CPU."""
        named = dict(kwargs or {})
        if _made_of_others(function):  # those come back here; autograd does the same where it is on
            with self:
                return function.decompose(*args, **named)
        leaves: list[Tensor] = []
        given, options = _held(args, leaves), {name: _held(value, leaves) for name, value in named.items()}
        here = [leaf for leaf in leaves if not isinstance(leaf, DeviceTensor)]
        kind, place = function.overloadpacket, named.get("device")
        there = len(here) < len(leaves)
        to_device = there if place is None else torch.device(place).type == DEVICE.type
        if kind in COPIES:
            to_device = self._copied(kind, args, to_device)
        elif there and here:
            self._mixed(function, args, here)
        if there and (kind in READS or _counts_first(kind, args, named)):
            self.reads.append(kind.__name__)
        if place is not None:
            options["device"] = "cpu"
        found = function(*given, **options)
        if args and isinstance(args[0], Tensor) and found is given[0]:
            return args[0]  # computed in place
        return _wrapped(found) if to_device else found

    def _copied(self, kind: Any, args: Any, to_device: bool) -> bool:
        """Note a copy between devices; whether its result is on the device."""
        if kind is aten._to_copy:
            source, lands = isinstance(args[0], DeviceTensor), to_device
        else:
            source, lands = isinstance(args[1], DeviceTensor), isinstance(args[0], DeviceTensor)
        if source and not lands:
            self.reads.append(kind.__name__)
        if lands and not source:
            self.uploads.append(kind.__name__)
        return lands

    def _mixed(self, function: Any, args: Any, here: list[Tensor]) -> None:
        """Refuse tensors of the CPU beside those of the device, but for what CUDA takes."""
        kind = function.overloadpacket
        indices = [index for index in args[1] if index is not None] if kind in INDEXING else []
        for tensor in here:
            if any(tensor is index for index in indices) and isinstance(args[0], DeviceTensor):
                self.uploads.append(kind.__name__)
            elif tensor.dim() or not (torch.Tag.pointwise in function.tags or kind in INDEXING):
                raise WrongDeviceError(f"{function}: a tensor of shape {tuple(tensor.shape)} on the CPU meets one on the device")


class _Lists(TorchFunctionMode):
    """Numbers that become a tensor of the device, or a tensor that becomes numbers: torch has neither for ``meta``."""

    def __init__(self, counts: StandIn) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch."""
        named = dict(kwargs or {})
        if function is Tensor.tolist and isinstance(args[0], DeviceTensor):
            self._counts.reads.append("tolist")
            return args[0].held.tolist()
        if function in (torch.tensor, torch.as_tensor):
            leaves: list[Tensor] = []
            args = _held(args, leaves)
            self._counts.reads += ["item"] * sum(isinstance(leaf, DeviceTensor) for leaf in leaves)
            if torch.device(named.get("device") or "cpu").type == DEVICE.type:
                self._counts.uploads.append(function.__name__)
                return DeviceTensor(function(*args, **(named | {"device": "cpu"})))
        return function(*args, **named)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """The device, for the code within, and what crosses between it and the CPU."""
    with StandIn() as counts, _Lists(counts):
        yield counts


def _held(value: Any, leaves: list[Tensor]) -> Any:
    """An argument as the CPU takes it; its tensors are added to ``leaves``."""
    if isinstance(value, Tensor):
        leaves.append(value)
        return value.held if isinstance(value, DeviceTensor) else value
    return type(value)(_held(part, leaves) for part in value) if type(value) in (tuple, list) else value


def _wrapped(found: Any) -> Any:
    """A result as one of the device."""
    if isinstance(found, Tensor):
        return DeviceTensor(found)
    return type(found)(map(_wrapped, found)) if type(found) in (tuple, list) else found


@cache
def _made_of_others(function: Any) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd"))


def _counts_first(kind: Any, args: Any, named: dict[str, Any]) -> bool:
    """Whether the result's shape has to be read: of a mask as index, of repeats without their sum."""
    if kind in INDEXING:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return kind is aten.repeat_interleave and named.get("output_size") is None and not isinstance(args[-1], int)


def moved(model: nn.Module) -> Any:
    """A copy of a model on the device."""
    model = copy.deepcopy(model)
    shared: dict[int, nn.Parameter] = {}  # a tied lm_head stays tied
    for part in model.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                if id(parameter) not in shared:
                    shared[id(parameter)] = nn.Parameter(DeviceTensor(parameter.data), requires_grad=False)
                part._parameters[name] = shared[id(parameter)]
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else DeviceTensor(buffer)
    return model
