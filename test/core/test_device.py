"""What the solver computes reaches the CPU in one copy."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from uns_pose_ros.core.device import to_cpu


@dataclass(frozen=True)
class Numbers:
    matrix: Tensor
    row: Tensor
    nothing: Tensor
    one: Tensor


def test_a_dataclass_of_tensors_reaches_the_cpu_in_one_copy_with_its_shapes_and_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = Numbers(
        torch.arange(12.0).view(2, 3, 2).mT,
        torch.tensor([0.1, torch.inf, -1.0]),
        torch.zeros(0, 4),
        torch.tensor(7.0),
    )
    copy, copies = Tensor.cpu, list[Tensor]()

    def count(tensor: Tensor) -> Tensor:
        copies.append(tensor)
        return copy(tensor)

    monkeypatch.setattr(Tensor, "cpu", count)
    copied = to_cpu(numbers)
    assert len(copies) == 1
    for name, tensor in vars(numbers).items():
        assert torch.equal(getattr(copied, name), tensor.double())
        assert getattr(copied, name).shape == tensor.shape
