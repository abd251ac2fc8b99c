"""Training by several processes, one a GPU, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class DistributedContext:
    """This process among those that train one model."""

    rank: int = 0
    world: int = 1  # processes

    @staticmethod
    def from_environment(device: str) -> tuple[DistributedContext, str]:
        """Join the processes that torchrun started, and the device that is this one's.

        Alone without torchrun.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1 or "RANK" not in os.environ:
            return DistributedContext(), device
        on_gpu = device != "cpu" and torch.cuda.is_available()
        if on_gpu:
            device = (
                f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
            )
            torch.cuda.set_device(torch.device(device))
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if on_gpu else "gloo")
        return DistributedContext(int(os.environ["RANK"]), world), device

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the mean of all processes' gradients."""
        if self.world == 1:
            return
        gradients = [one.grad for one in parameters if one.grad is not None]
        flat = torch.cat([one.flatten() for one in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for one, mean in zip(
            gradients, flat.split([one.numel() for one in gradients]), strict=True
        ):
            one.copy_(mean.view_as(one))
