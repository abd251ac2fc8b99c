#!/usr/bin/env python3
"""What the evidence of a pose means, whatever the category: the numbers of `common_chance`.

    python benchmarks/common_chance.py mug chair horse car --json chance.json

Each FOLDER is a category that `uns-pose train` has trained. Half of its videos teach a head, which
estimates views of the other half, whose poses the alignment knows; no label is read. A logistic
regression on the evidence of all these poses tells the right ones.

    weights     evidence: the least and the most that was seen, and nats for each unit
    bias        nats
    categories  for each folder, views, percent of them that are wrong, and the AUROC of the chance:
                `own`: fitted to its own views; `others`: to those of all other folders; `common`:
                to all
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from common import politely
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.score_calibration import Chance
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.evaluation.metrics import auroc
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.dinov2 import load_backbone
from uns_pose_ros.training.common_chance import MEANS_THE_SAME, RIGHT
from uns_pose_ros.training.cross_fit import estimate_halves
from uns_pose_ros.training.score_training import HeldOut
from uns_pose_ros.training.training_views import TrainConfig, random_views

# degrees: a pose with a larger rotation error than the first is wrong. The other angles teach what
# the error grows with, where few poses are wrong
TEACHING_ANGLES = (RIGHT, 10.0, 15.0, 20.0, 45.0, 60.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument(
        "--scenes", type=int, default=8, help="images without the object (default: 8)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    held_out = {}
    for folder in args.folders:
        held_out[str(folder)] = gather(folder, args.scenes)
        print(f"{folder}: {len(held_out[str(folder)].error)} views", file=sys.stderr)
    text = json.dumps(figures(held_out), indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n")


def gather(folder: Path, scenes: int) -> HeldOut:
    """Estimate held-out views of a trained category."""
    model = artifacts.load_model(folder / "model")
    network = LoadedModel(model, torch.device("cpu"), False).head.config
    config = replace(TrainConfig(), network=network, scenes=scenes)
    names = list(model.training_poses)
    videos = [load_video(folder / name) for name in names]
    meshes = [artifacts.load_feature_mesh(folder / name) for name in names]
    mirror = model.provenance.get("mirror")
    backbone = load_backbone()
    views = random_views(
        videos,
        [(mesh.vertices, mesh.triangles) for mesh in meshes],
        torch.stack([pose.double() for pose in model.training_poses.values()]),
        torch.ones(len(names)),
        backbone,
        config,
        mirror=None if mirror is None else torch.tensor(mirror, dtype=torch.float64),
    )
    gathered = estimate_halves(views, model, videos, backbone, config)
    if gathered is None:
        raise InvalidInput(f"{folder}: two videos or more are needed")
    return gathered[0]


def figures(held_out: dict[str, HeldOut]) -> dict[str, Any]:
    """See the top of this file."""
    common = fit_common(list(held_out.values()))
    names = list(EVIDENCE)
    categories = {}
    for name, own in held_out.items():
        others = [one for other, one in held_out.items() if other != name]
        degrees = torch.rad2deg(own.error.norm(dim=1)).tolist()
        chances = {"own": fit_common([own]), "common": common}
        if others:
            chances["others"] = fit_common(others)
        categories[name] = {
            "views": len(degrees),
            "wrong_percent": 100 * float(np.mean(np.array(degrees) > RIGHT)),
            **{
                key: auroc(list(zip(chance(own.evidence).tolist(), degrees, strict=True)))
                for key, chance in chances.items()
            },
        }
    weights = {}
    for name in MEANS_THE_SAME:
        at = names.index(name)
        numbers = (common.low[at], common.high[at], common.weight[at])
        weights[name] = [round(float(number), 3) for number in numbers]
    return {"weights": weights, "bias": round(common.bias, 3), "categories": categories}


def fit_common(held_out: Sequence[HeldOut]) -> Chance:
    """Fit the chance to the evidence that means the same in all categories."""
    evidence = torch.cat([one.evidence for one in held_out]).clone()
    evidence[:, [k for k, name in enumerate(EVIDENCE) if name not in MEANS_THE_SAME]] = 0
    size = torch.cat([one.error.norm(dim=1) for one in held_out])
    angles = torch.deg2rad(torch.tensor(TEACHING_ANGLES, dtype=torch.float64))
    return fit_chance(evidence, size < angles[:, None])


def fit_chance(evidence: Tensor, outcomes: Tensor, decay: float = 1.0) -> Chance:
    """Fit a logistic regression; the chance is that of the first one of several outcomes.

    All outcomes have the same weights of the evidence and biases of their own, so that a rare one
    is also learned from those like it; true and false weigh alike in all. Then a factor of the
    weights and a bias are fitted to the first outcome as frequent as it is. No evidence counts
    against its meaning: a number that grows for right poses gets no negative weight.

    Args:
        evidence: (N, F) float64.
        outcomes: (K, N) bool. Those that are always the same count for nothing.
        decay: Penalty on half the squared weights of the evidence in standard deviations.
    """
    values, outcome = evidence.numpy(), outcomes.numpy().astype(np.float64)
    signs = np.array([float(sign) for sign in EVIDENCE.values()])
    low, high = values.min(0), values.max(0)
    mean, spread = values.mean(0), values.std(0) + 1e-6
    scaled = (values - mean) / spread * signs
    share = outcome.mean(1, keepdims=True)  # (K, 1)
    varied = (share > 0) & (share < 1)
    share = share.clip(1e-6, 1 - 1e-6)
    weight = varied / varied.sum() * np.where(outcome > 0, 0.5 / share, 0.5 / (1 - share))
    beta = _regress(scaled, outcome, weight, decay, 0.0)[: -len(outcome)]
    score = (scaled @ beta)[:, None]
    factor, bias = _regress(score, outcome[:1], np.ones((1, len(score))), decay, 1.0)
    slope = factor * beta * signs / spread
    least, most, weights = (torch.from_numpy(column) for column in (low, high, slope))
    return Chance(least, most, weights, float(bias - (slope * mean).sum()))


def _regress(
    values: NDArray[np.float64],
    outcome: NDArray[np.float64],
    weight: NDArray[np.float64],
    decay: float,
    usual: float,
) -> NDArray[np.float64]:
    """Fit weights (F,), none negative, that K outcomes share, and a bias for each of them.

    Args:
        values: (N, F).
        outcome: (K, N) 1 or 0.
        weight: (K, N).
        decay: Penalty on half the squared difference of the weights from the usual one.
        usual: The usual weight.

    Returns:
        (F + K,).
    """
    facts = values.shape[1]

    def loss(beta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = values @ beta[:facts] + beta[facts:, None]
        gap = weight * (1 / (1 + np.exp(-logit)) - outcome)
        beyond = beta[:facts] - usual
        slope = gap.sum(0) @ values + decay * beyond
        cost = weight * (np.logaddexp(0, logit) - outcome * logit)
        penalty = decay * (beyond**2).sum() / 2
        return float(cost.sum() + penalty), np.concatenate([slope, gap.sum(1)])

    bounds = [(0.0, None)] * facts + [(None, None)] * len(outcome)
    start = np.append(np.full(facts, usual), np.zeros(len(outcome)))
    return np.asarray(minimize(loss, start, jac=True, bounds=bounds).x)


if __name__ == "__main__":
    politely(main)
