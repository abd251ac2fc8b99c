"""The compute device: chosen once, and what its errors mean."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import torch

from uns_pose_ros.core.errors import InvalidInput

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Tensors = TypeVar("Tensors", bound="DataclassInstance")
Precision = Literal["fp32", "bf16"]
OUT_OF_MEMORY = "out of memory"
_FAILED = (
    "CUDA error",
    "CUDA driver",
    "cuDNN error",
    "CUBLAS_STATUS",
    "CUSOLVER_STATUS",
    "No CUDA GPUs",
    "no CUDA-capable",
)
_log = logging.getLogger(__name__)


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`: auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidInput(
            f"device {name!r} is unknown: auto, cpu, cuda or cuda:N are valid"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput(
            f"device {name!r} is not supported: auto, cpu, cuda or cuda:N are valid"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInput(
            f"device {name!r} is not here: this machine has {torch.cuda.device_count()} CUDA "
            "devices"
        )
    return device


def choose_precision(device: torch.device) -> Precision:
    """What networks compute their matrix products in.

    Bf16 where the processor has instructions for it, else fp32. ATEN_CPU_CAPABILITY=avx2 and its
    like make every processor one without.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    wide = torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AMX"))
    return "bf16" if wide and supported is not None and supported() else "fp32"


def compute_dtype(precision: Precision) -> torch.dtype:
    """The data type of a precision."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which networks compute their matrix products in `precision`."""
    return torch.autocast(device.type, compute_dtype("bf16"), enabled=precision == "bf16")


def to_cpu(values: Tensors) -> Tensors:
    """Copy a dataclass of tensors to the CPU as float64, in one copy: the processor waits once.

    Args:
        values: A dataclass whose fields are tensors of one floating type on one device.
    """
    tensors = {field.name: getattr(values, field.name) for field in fields(values)}
    joined = torch.cat([tensor.flatten() for tensor in tensors.values()]).cpu().double()
    parts = joined.split([tensor.numel() for tensor in tensors.values()])
    return replace(
        values,
        **{
            name: part.view(tensor.shape)
            for (name, tensor), part in zip(tensors.items(), parts, strict=True)
        },
    )


def trouble_of(error: RuntimeError) -> str | None:
    """What an error says of the device, "out of memory" or that it failed.

    None where it is not about the device.
    """
    text = " ".join(str(error).split())[:200]
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return OUT_OF_MEMORY
    lost = isinstance(error, getattr(torch, "AcceleratorError", ())) or any(
        sign in text for sign in _FAILED
    )
    return f"the device failed ({text})" if lost else None


def release_memory() -> None:
    """Give cached memory of CUDA devices back, where there are any."""
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # of a device that is lost
        _log.debug("the memory of a lost device cannot be given back")
