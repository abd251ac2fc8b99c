"""The backbone against the exported graph of the same network, and its resized positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.networks import dinov2, pretrained_weights

TOKENS = b"/norm/Add_1_output_0"  # all tokens after the last norm, in the exported graph


def cached(name: str) -> Path:
    try:
        return pretrained_weights.find(name)
    except InvalidInput as missing:
        pytest.skip(f"{missing} (make setup fetches them)")


@pytest.fixture(scope="module")
def network() -> dinov2.DinoV2:
    return dinov2.load_backbone(cached("dinov2_vits14"), device="cpu")


@pytest.fixture
def exported() -> Callable[[Tensor], Tensor]:
    """The exported graph: images (B, 3, 224, 224) to all tokens (B, 257, 384)."""
    graph = cached("dinov2_vits14_onnx").read_bytes()
    runtime = pytest.importorskip("onnxruntime")
    # protobuf messages merge where they are concatenated, so this adds an output to the graph:
    # ValueInfoProto.name (1) in GraphProto.output (12) in ModelProto.graph (7)
    addition = TOKENS
    for number in (1, 12, 7):
        addition = bytes([number << 3 | 2, len(addition)]) + addition
    session = runtime.InferenceSession(graph + addition, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(
        session.run([TOKENS.decode()], {"input": images.numpy()})[0]
    )


def smooth_images(count: int, height: int, width: int) -> Tensor:
    """Images (count, 3, height, width) uint8 that have structure at the scale of a patch."""
    noise = torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(3)) * 255
    return (
        functional.interpolate(noise, size=(height, width), mode="bicubic")
        .clamp(0, 255)
        .to(torch.uint8)
    )


def test_features_equal_those_of_the_exported_graph(
    network: dinov2.DinoV2,
    exported: Callable[[Tensor], Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bilinear(rows: int, columns: int) -> Tensor:  # as in the graph
        grid = network.pos_embed[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
        grid = functional.interpolate(
            grid, scale_factor=((rows + 0.1) / 37, (columns + 0.1) / 37), mode="bilinear"
        )
        return torch.cat([network.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], 1)

    images = dinov2.imagenet_normalize(smooth_images(2, 224, 224))
    expected = exported(images)[:, 1:].unflatten(1, (16, 16))
    monkeypatch.setattr(network, "positions", bilinear)
    tokens = network(images)
    assert tokens.shape == (2, 16, 16, 384)
    assert (tokens - expected).abs().max() < 2e-4


def bicubic_weights(count: int) -> Tensor:
    """(count, 37) float64.

    The bicubic kernel (a = -0.75) sampled by the rule of DINOv2's authors, written out.
    """
    matrix = torch.zeros(count, 37, dtype=torch.float64)
    for i in range(count):
        center = (i + 0.5) * 37 / (count + 0.1) - 0.5
        for tap in range(math.floor(center) - 1, math.floor(center) + 3):
            x = abs(center - tap)
            near = 1.25 * x**3 - 2.25 * x**2 + 1
            far = -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
            matrix[i, min(max(tap, 0), 36)] += near if x <= 1 else far
    return matrix


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (20, 32), (45, 3)])
def test_positions_are_resized_by_the_rule_of_the_training(
    network: dinov2.DinoV2, rows: int, columns: int
) -> None:
    grid = network.pos_embed[0, 1:].unflatten(0, (37, 37)).double()
    expected = torch.einsum(
        "ri,cj,ijd->rcd", bicubic_weights(rows), bicubic_weights(columns), grid
    )
    tokens = network.positions(rows, columns)
    assert torch.equal(tokens[:, 0], network.pos_embed[:, 0])
    assert (tokens[0, 1:].unflatten(0, (rows, columns)) - expected).abs().max() < 1e-4


def test_positions_of_the_training_size_are_not_touched(network: dinov2.DinoV2) -> None:
    assert torch.equal(network.positions(37, 37), network.pos_embed)


def test_a_patch_keeps_its_row_and_column(network: dinov2.DinoV2) -> None:
    images = smooth_images(1, 56, 84)
    changed = images.clone()
    changed[:, :, 14:28, 42:56] = 255 - changed[:, :, 14:28, 42:56]  # row 1, column 3
    before, after = (
        network(dinov2.imagenet_normalize(image), layers=(0,))[0]
        for image in (images, changed)
    )
    difference = (before - after).norm(dim=-1)[0]
    assert difference.shape == (4, 6)
    assert int(difference.argmax()) == 1 * 6 + 3


def test_images_of_a_batch_do_not_influence_each_other(network: dinov2.DinoV2) -> None:
    images = dinov2.imagenet_normalize(smooth_images(3, 56, 70))
    together, alone = network(images), torch.cat([network(image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-4


def test_several_layers_come_in_the_order_asked_for(network: dinov2.DinoV2) -> None:
    images = dinov2.imagenet_normalize(smooth_images(1, 28, 42))
    layers = network(images, layers=(-1, 5, 11))
    assert layers.shape == (3, 1, 2, 3, 384)
    assert torch.equal(layers[0], network(images)) and torch.equal(layers[0], layers[2])
    assert (layers[1] - layers[0]).abs().mean() > 0.1


def test_bfloat16_gives_nearly_the_same_features(network: dinov2.DinoV2) -> None:
    halved = dinov2.load_backbone(cached("dinov2_vits14"), device="cpu", precision="bf16")
    images = dinov2.imagenet_normalize(smooth_images(1, 224, 224))
    tokens = halved(images)
    assert tokens.dtype == torch.float32
    assert functional.cosine_similarity(tokens, network(images), dim=-1).min() > 0.995


def test_normalised_pixels_are_those_of_imagenet() -> None:
    images = torch.tensor([124, 116, 104], dtype=torch.uint8)[None, :, None, None].expand(
        1, 3, 14, 14
    )
    assert dinov2.imagenet_normalize(images).abs().max() < 0.01  # the mean color
    white = dinov2.imagenet_normalize(
        torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    ).flatten()
    assert torch.allclose(white, torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-4)


def test_the_backbone_is_frozen(network: dinov2.DinoV2) -> None:
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(("height", "width"), [(224, 225), (223, 224), (0, 14)])
def test_a_size_that_14_does_not_divide_is_refused(
    network: dinov2.DinoV2, height: int, width: int
) -> None:
    with pytest.raises(
        ValueError, match=f"image of {width} x {height} px: multiples of 14 px needed"
    ):
        network(torch.zeros(1, 3, height, width))


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(
        InvalidInput,
        match=r"other\.safetensors does not hold the weights of DINOv2 ViT-S/14",
    ) as refusal:
        dinov2.load_backbone(path)
    assert "\n" not in str(refusal.value)


def test_unknown_precision_lists_what_is_valid() -> None:
    with pytest.raises(InvalidInput, match="'fp8': fp32 or bf16 is valid"):
        dinov2.DinoV2("fp8")  # type: ignore[arg-type]
