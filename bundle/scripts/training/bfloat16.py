# SPDX-License-Identifier: Apache-2.0
"""Time for digits: the network in bfloat16, everything around it in float32."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from ignite.distributed import get_rank
from monai.inferers import SimpleInferer
from torch import nn


def cpu_has_bfloat16() -> bool:
    """Whether PyTorch's convolutions on this CPU are made for bfloat16: with AVX-512, or ARM's own instructions."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16: a GPU since Ampere, a CPU with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not cpu_has_bfloat16():
        return False
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases of PyTorch
    return bool(told.get("avx512_bf16") or told.get("amx_bf16"))


@cache
def _tell_once() -> None:
    if get_rank() == 0:
        reason = f"this CPU ({torch.backends.cpu.get_cpu_capability()}) only emulates bfloat16, many times slower"
        print(f"bfloat16 True: float32 is used instead, since {reason}", flush=True)


def as_float32(prediction: Any) -> Any:
    """The half-precision tensors of a prediction, a tensor or nested dictionaries and tuples of them, in float32."""
    if isinstance(prediction, dict):
        return {name: as_float32(value) for name, value in prediction.items()}
    if isinstance(prediction, tuple):
        return tuple(as_float32(value) for value in prediction)
    half = isinstance(prediction, torch.Tensor) and prediction.dtype in (torch.bfloat16, torch.float16)
    return prediction.float() if half else prediction


class BFloat16Inferer(SimpleInferer):
    """
    Calls a network under autocast to bfloat16, on a CPU or a GPU; weights, predictions, losses and gradients of the
    weights stay in float32. Unlike float16 (MONAI's ``amp``) it has the range of float32 and needs no scaled loss.
    On a CPU that only emulates bfloat16 the network is called in float32, and one printed line says so.

    Args:
        enabled: False calls the network as it is; None asks :func:`is_fast_in_bfloat16`.
    """

    def __init__(self, enabled: bool | None = True) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """
        Args:
            inputs: image, ``(B, C, D, H, W)``.
            network: called with the image and what follows.
            args: further arguments of the network.
            kwargs: further named arguments of the network.

        Returns:
            the prediction, in float32.
        """
        enabled = is_fast_in_bfloat16(inputs.device) if self.enabled is None else self.enabled
        if not enabled:
            return network(inputs, *args, **kwargs)
        if inputs.device.type == "cpu" and not cpu_has_bfloat16():
            _tell_once()
            return network(inputs, *args, **kwargs)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            prediction = network(inputs, *args, **kwargs)
        return as_float32(prediction)
