"""Accuracy of synchronising real alignments of real videos (CO3D), and how well the confidence
tells right from wrong.

    python benchmarks/co3d_alignments.py co3d_alignments.npz --json -

The pack holds, for each category, the pose of every video against five references
(`<category>/reference_from_obj_<set>`, (5, N, 4, 4), NaN where missing), as somebody else's
pairwise alignment found it: one mode a pair. Labels are read only to score. About half a minute on
one core.

Beside the consensus stand the votes themselves: the pose of each labeled video against each labeled
reference, before any consensus. `half_turn_aware` counts poses as equal that differ by a half turn
about an axis of the labels: such votes are bimodal, and a consensus of few labeled videos is then
right or wrong as a whole, while the votes are right by half. `--table` prints the categories in
which the consensus is below its votes, and which votes are wrong there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import politely
from uns_pose_ros.alignment.rotation_synchronization import (
    ConsensusConfig,
    Edges,
    agreement_shares,
    synchronize,
)
from uns_pose_ros.core.geometry import angle_between, nearest_rotation
from uns_pose_ros.evaluation.metrics import ANGLES, accuracies, auroc

SETS = ("vits14", "vitb14_refined")
# of a reference's pose in its own frame: the same mesh, so about half as far off as others
OWN_WEIGHT = 3.0


def votes(reference_from_obj: Tensor, references: Sequence[int]) -> tuple[Edges, Tensor]:
    """The poses (R, N, 4, 4) of N videos against R references as votes, and which poses (R, N)
    there are.

    The references' frames are nodes N .. N+R-1 of their own: they are arbitrary, and even a
    reference's own pose in its frame is an estimate.
    """
    known = reference_from_obj.isfinite().all(-1).all(-1)
    frame, video = known.nonzero(as_tuple=True)
    rotation = nearest_rotation(reference_from_obj[known][:, :3, :3])
    own = torch.tensor(references)[frame] == video
    weight = torch.where(own, OWN_WEIGHT, 1.0).double()[:, None]
    count = known.shape[1]
    return Edges(
        count + len(known),
        frame + count,
        video,
        torch.zeros_like(own),
        rotation[:, None],
        weight,
    ), known


def align_category(
    reference_from_obj: Tensor, references: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """canon_from_obj rotations (N, 3, 3), confidences (N,) and which videos (N,) have any
    alignment; sees no label.
    """
    edges, known = votes(reference_from_obj, references)
    consensus = synchronize(edges, ConsensusConfig(roots=len(references) + 1))
    # a reference answers for its own poses and for those of others in its frame
    node = torch.cat([torch.arange(known.shape[1]), torch.tensor(references)])
    merged = Edges(
        known.shape[1],
        node[edges.source],
        edges.target,
        edges.mirrored,
        edges.source_from_target,
        edges.weight.clamp(max=1),
    )
    confidence = agreement_shares(merged, consensus)
    return consensus.canon_from_video[: known.shape[1]], confidence, known.any(0)


def half_turns() -> Tensor:
    """The identity and the half turns about x, y and z (4, 3, 3)."""
    signs = [[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    return torch.diag_embed(torch.tensor(signs, dtype=torch.float64))


def pair_errors(first_from_second: Tensor, first: Tensor, second: Tensor) -> dict[str, Any]:
    """Accuracies of relative rotations (P, 3, 3), exactly and up to half turns.

    Args:
        first_from_second: The rotations.
        first: Labels canon_from_obj (P, 3, 3) of the first videos.
        second: Labels (P, 3, 3) of the second videos.
    """
    off = first @ first_from_second @ second.mT  # identity where right
    errors = angle_between(off, torch.eye(3, dtype=torch.float64))
    up_to = angle_between(off[:, None], half_turns()).amin(1)
    return accuracies(errors) | {"half_turn_aware": accuracies(up_to), "pairs": len(errors)}


def rate_votes(poses: Tensor, references: Sequence[int], label: Tensor) -> dict[str, Any]:
    """The accuracy of the votes by themselves, and how each labeled reference votes.

    Args:
        poses: Poses (R, N, 4, 4) of the videos against the references, NaN where missing.
        references: The references' numbers (R,).
        label: Labels canon_from_obj (N, 3, 3), NaN where there is none.

    Returns:
        The figures of `pair_errors`, and under wrong_votes, for each labeled reference, how many
        of its votes are off by more than 30 degrees, by at least 150, and how many there are.
    """
    known = poses.isfinite().all(-1).all(-1)
    labelled = label.isfinite().all(-1).all(-1)
    frames, videos, wrong = list[int](), list[int](), dict[str, list[int]]()
    for frame, own in enumerate(references):
        others = known[frame] & labelled
        others[own] = False
        count = int(others.sum())
        if not (known[frame, own] and labelled[own] and count):
            continue
        frames += [frame] * count
        videos += others.nonzero()[:, 0].tolist()
    owns = torch.tensor(references)[frames]
    voted = nearest_rotation(poses[frames, owns][:, :3, :3]).mT @ nearest_rotation(
        poses[frames, videos][:, :3, :3]
    )
    errors = angle_between(voted, label[owns].mT @ label[videos])
    for frame in sorted(set(frames)):
        mine = errors[torch.tensor(frames) == frame]
        wrong[str(references[frame])] = [
            int((mine >= 30).sum()),
            int((mine >= 150).sum()),
            len(mine),
        ]
    return pair_errors(voted, label[owns], label[videos]) | {"wrong_votes": wrong}


def benchmark(pack: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Mean over the categories of the accuracies over unordered pairs of labelled videos, for one
    set of alignments.
    """
    categories = sorted({key.split("/")[0] for key in pack})
    per_category, scored, missing = {}, list[tuple[float, float]](), 0
    start = time.perf_counter()
    for category in categories:
        sequences = list(pack[f"{category}/sequences"])
        references = [sequences.index(r) for r in pack[f"{category}/references"]]
        poses = torch.tensor(
            pack[f"{category}/reference_from_obj_{name}"], dtype=torch.float64
        )
        rotation, confidence, aligned = align_category(poses, references)
        label = torch.tensor(pack[f"{category}/label_canon_from_obj"], dtype=torch.float64)
        labelled = label.isfinite().all(-1).all(-1)
        missing += int((labelled & ~aligned).sum())
        i, j = torch.combinations((labelled & aligned).nonzero()[:, 0]).T
        errors = angle_between(rotation[i].mT @ rotation[j], label[i].mT @ label[j])
        scored += zip(
            (confidence[i] * confidence[j]).tolist(), errors.tolist(), strict=True
        )
        per_category[category] = pair_errors(
            rotation[i].mT @ rotation[j], label[i], label[j]
        ) | {
            "votes": rate_votes(poses, references, label),
            "confidence": {
                str(video): float(confidence[video])
                for video in (labelled & aligned).nonzero()[:, 0].tolist()
            },
        }
    mean = mean_accuracies(list(per_category.values()))
    mean["half_turn_aware"] = mean_accuracies(
        [figures["half_turn_aware"] for figures in per_category.values()]
    )
    mean["votes"] = mean_accuracies([figures["votes"] for figures in per_category.values()])
    counts = {
        "pairs": len(scored),
        "labelled_without_alignment": missing,
        "seconds": time.perf_counter() - start,
    }
    return mean | {"auroc": auroc(scored)} | counts | {"categories": per_category}


def mean_accuracies(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each accuracy over categories."""
    return {f"acc{a}": float(np.mean([row[f"acc{a}"] for row in figures])) for a in ANGLES}


def below_votes(result: Mapping[str, Any]) -> list[str]:
    """A line for each category in which fewer pairs of the consensus are right than votes."""
    lines = list[str]()
    for category, figures in result["categories"].items():
        votes = figures["votes"]
        if figures["acc30"] >= votes["acc30"]:
            continue
        wrong, flipped, count = np.array(list(votes["wrong_votes"].values())).sum(0)
        aware = figures["half_turn_aware"]["acc30"], votes["half_turn_aware"]["acc30"]
        lines.append(
            f"{category}: consensus {figures['acc30']:.0f}, votes {votes['acc30']:.0f} @30°; "
            f"{wrong} of {count} votes are wrong, {flipped} of them by 150° or more; up to half "
            f"turns {aware[0]:.0f} and {aware[1]:.0f}; least confidence "
            f"{min(figures['confidence'].values()):.2f}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path, help="npz file of alignments")
    parser.add_argument(
        "--sets", nargs="+", default=SETS, help="names of the alignments in the pack"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the figures there; - prints them and nothing else on stdout",
    )
    parser.add_argument(
        "--table", action="store_true", help="categories whose consensus is below its votes"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(arguments.pack, allow_pickle=False) as archive:
        pack = dict(archive)
    result = {}
    for name in arguments.sets:
        result[name] = benchmark(pack, name)
        figures = "  ".join(
            f"{key} {result[name][key]:.3g}"
            for key in ("acc30", "acc15", "acc10", "auroc", "seconds")
        )
        print(f"{name}  {figures}", file=sys.stderr)
        for line in below_votes(result[name]) if arguments.table else ():
            print(f"  {line}", file=sys.stderr)
    text = json.dumps(result, indent=2)
    if arguments.json == "-":
        print(text)
    elif arguments.json:
        Path(arguments.json).write_text(text + "\n")


if __name__ == "__main__":
    politely(main)
