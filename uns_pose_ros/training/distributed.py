"""Training by several processes, one for each GPU, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class DistributedContext:
    """This process among those that train one model."""

    rank: int = 0
    world: int = 1  # number of processes

    @staticmethod
    def from_environment(device: str) -> tuple[DistributedContext, str]:
        """Join the processes that torchrun started; without torchrun, this process is alone.

        Returns:
            The context, and the device of this process.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1 or "RANK" not in os.environ:
            return DistributedContext(), device
        on_gpu = device != "cpu" and torch.cuda.is_available()
        if on_gpu:
            local_rank = int(os.environ.get("LOCAL_RANK", "0"))
            device = f"cuda:{local_rank % torch.cuda.device_count()}"
            torch.cuda.set_device(torch.device(device))
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if on_gpu else "gloo")
        return DistributedContext(int(os.environ["RANK"]), world), device

    def is_common(self, value: int) -> bool:
        """Whether all processes have the same value."""
        if self.world == 1:
            return True
        values: list[object] = [None] * self.world
        distributed.all_gather_object(values, value)
        return len(set(values)) == 1

    def average(self, values: Tensor) -> Tensor:
        """The mean of the values of all processes."""
        if self.world == 1:
            return values
        mean = values.clone()
        distributed.all_reduce(mean)
        return mean / self.world

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients of every process by their mean over all processes."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        means = flat.split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
