# SPDX-License-Identifier: Apache-2.0
"""
A device that is not there: what runs on it is computed on the CPU, but tensors of two devices do not mix.

``torch.device("cuda")`` stands for it. As on an accelerator, tensors of both in one operation raise, and so does
``numpy`` of what lies there; a number without axes, positions to index by and copies may come from anywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

THERE, HERE = torch.device("cuda", 0), torch.device("cpu")
Tensor = torch.Tensor
FIRST_DECIDES = {Tensor.copy_, Tensor.__getitem__, Tensor.__setitem__}
MOVES = {Tensor.to, Tensor.cpu, Tensor.type_as, torch.as_tensor}
MAY_MIX = {*FIRST_DECIDES, *MOVES, Tensor.data.__set__, torch._has_compatible_shallow_copy_type}


def lies_there(tensor: torch.Tensor) -> bool:
    """Kept with the storage, which views of a tensor share."""
    return getattr(tensor.untyped_storage(), "lies_there", False)


def put_there(*tensors: torch.Tensor) -> None:
    """From now on they lie there."""
    for tensor in tensors:
        tensor.untyped_storage().lies_there = True


def tensors_in(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def asked_for(func: Any, args: Any, kwargs: Any) -> bool | None:
    """Whether a call asks for a tensor there, or for one that is not; None where it follows what it is given."""
    if func is Tensor.cpu:
        return False
    if func in (Tensor.to, Tensor.type_as) and len(args) > 1 and isinstance(args[1], torch.Tensor):
        return lies_there(args[1])
    given = [value for value in (*args, kwargs.get("device")) if isinstance(value, (torch.device, str))]
    devices = [torch.device(value) for value in given if isinstance(value, torch.device) or value in ("cpu", "cuda")]
    return any(device.type == THERE.type for device in devices) if devices else None


class PretendedDevice(TorchFunctionMode):
    """Within it the device is there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch._C._nn._parse_to:  # of Module.to, which asks what it is given
            return func(*args, **kwargs)
        given = tensors_in((args, kwargs))
        there = any(map(lies_there, given))
        if func == Tensor.device.__get__:
            return THERE if there else HERE
        if func == Tensor.is_cpu.__get__:
            return not there
        if there and func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert a tensor of another device to numpy: use Tensor.cpu()")
        if there and func not in MAY_MIX and any(tensor.dim() and not lies_there(tensor) for tensor in given):
            raise RuntimeError(f"tensors of two devices in {getattr(func, '__name__', func)}")
        where = lies_there(args[0]) if func in FIRST_DECIDES else asked_for(func, args, kwargs)
        where = there if where is None else where
        args, kwargs = pytree.tree_map_only(torch.device, lambda _: HERE, (args, kwargs))
        if func in MOVES and isinstance(args[0], torch.Tensor) and lies_there(args[0]) != where:
            args = (args[0].clone(), *args[1:])  # on one device torch gives the same tensor back
        found = func(*args, **kwargs)
        if where:
            put_there(*tensors_in(found))
        return found
