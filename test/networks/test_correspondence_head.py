"""The head reads its own weights, and those of before it had a classifier."""

from __future__ import annotations

import torch

from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig

CONFIG = NetworkConfig(layers=(11,), width=16, blocks=1, features=8, clutter=2)


def test_weights_without_a_classifier_are_read_and_call_nothing_alike() -> None:
    tokens = torch.randn(2, 4, 4, 384)
    trained, read = Head(CONFIG, 5, 384), Head(CONFIG, 5, 384)
    torch.nn.init.normal_(trained.likeness_weight)
    weights = trained.state_dict()
    read.load(weights)
    assert torch.equal(read.likeness(tokens), trained.likeness(tokens))
    assert float(read.likeness(tokens).std()) > 0.1
    older = {k: v for k, v in weights.items() if not k.startswith(("likeness", "rotation"))}
    old = Head(CONFIG, 5, 384)
    old.load(older)
    assert torch.equal(old(tokens).detach(), trained(tokens).detach())
    assert not old.likeness(tokens).any()
    assert not old.rotation_precision.any()


def test_likeness_reads_the_last_layer_alone() -> None:
    head = Head(CONFIG, 5, 2 * 384)
    torch.nn.init.normal_(head.likeness_weight)
    tokens = torch.randn(1, 4, 4, 2 * 384)
    other = torch.cat([torch.randn(1, 4, 4, 384), tokens[..., 384:]], -1)
    assert torch.equal(head.likeness(tokens), head.likeness(other))


def test_features_of_some_cells_are_those_of_the_whole_map() -> None:
    torch.manual_seed(0)
    head = Head(CONFIG, 5, 384)
    tokens = torch.randn(3, 4, 5, 384)
    # corners and edges, where the convolution meets its rim, of every image; one cell twice
    cells = torch.tensor([0, 9, 70, 79, 80, 85, 121, 159, 160, 200, 239, 85])
    whole, some = head(tokens).flatten(0, 2)[cells], head.at(tokens, cells)
    assert torch.allclose(some, whole, atol=1e-5)
    slopes = [
        torch.autograd.grad(features.pow(3).sum(), head.fine.mix.weight)[0]
        for features in (whole, some)
    ]
    assert float(slopes[0].abs().max()) > 0
    assert torch.allclose(slopes[0], slopes[1], atol=1e-4)
