"""Crops show what their maps say."""

from __future__ import annotations

import pytest
import torch

from uns_pose_ros.core.crops import crop, crop_from_image, mask_box, square_around
from uns_pose_ros.core.device import choose_device, choose_precision
from uns_pose_ros.core.errors import InvalidInput


def test_the_box_of_a_mask_holds_its_outermost_pixels() -> None:
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[4:9, 11:27] = True
    assert mask_box(mask).tolist() == [11, 4, 26, 8]
    with pytest.raises(ValueError, match="empty"):
        mask_box(torch.zeros(3, 3, dtype=torch.bool))


def test_squares_keep_the_centre_and_the_longer_side() -> None:
    assert square_around(torch.tensor([[10.0, 20, 30, 30]]), 0.1).tolist() == [
        [8, 13, 32, 37]
    ]


@pytest.mark.parametrize("side", [20.0, 56.0, 300.0])
def test_a_crop_shows_the_pixels_that_its_map_names(side: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(240.0), torch.arange(320.0), indexing="ij")
    image = torch.stack([columns, rows, torch.zeros_like(rows)])
    boxes = torch.tensor([[150 - side / 2, 120 - side / 2, 150 + side / 2, 120 + side / 2]])
    crops, maps = crop(image, boxes, 56)
    assert torch.equal(maps, crop_from_image(boxes, 56))
    where = torch.tensor([[28.0, 28, 1], [20, 31, 1]], dtype=torch.float64)
    source = where @ torch.linalg.inv(maps[0]).T
    for (x, y, _), (u, v, _) in zip(source.tolist(), where.tolist(), strict=True):
        assert crops[0, 0, int(v), int(u)] == pytest.approx(x, abs=max(0.51, side / 56))
        assert crops[0, 1, int(v), int(u)] == pytest.approx(y, abs=max(0.51, side / 56))


def test_outside_the_picture_a_crop_is_grey() -> None:
    crops, _ = crop(torch.zeros(3, 40, 40), torch.tensor([[30.0, 30, 70, 70]]), 28)
    assert bool((crops[0, :, 20:, 20:] == 127).all())
    assert float(crops[0, :, :5, :5].abs().max()) < 1e-3


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_precision(torch.device("cpu")) in ("bf16", "fp32")
    for name in ("tpu", "meta", "cuda:77"):
        with pytest.raises(InvalidInput, match=name):
            choose_device(name)


def test_a_processor_that_is_told_to_be_older_computes_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for capability, precision in (("AVX512", "bf16"), ("AVX2", "fp32")):
        monkeypatch.setattr(
            torch.backends.cpu, "get_cpu_capability", lambda told=capability: told
        )
        assert choose_precision(torch.device("cpu")) == precision
