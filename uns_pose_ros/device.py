"""The compute device, chosen once."""

from __future__ import annotations

from typing import Literal

import torch

from uns_pose_ros.datatypes import InvalidInput


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`: auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidInput(f"device {name!r} is unknown: auto, cpu, cuda or cuda:N are valid") from None
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput(f"device {name!r} is not supported: auto, cpu, cuda or cuda:N are valid")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInput(f"device {name!r} is not here: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def choose_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """What the backbone computes its matrix products in: bf16 where the processor has instructions for it, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if supported is not None and supported() else "fp32"
