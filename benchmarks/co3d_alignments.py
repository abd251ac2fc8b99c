"""Accuracy of synchronising real alignments of real videos (CO3D), and how well the confidence
tells right from wrong.

    python benchmarks/co3d_alignments.py co3d_alignments.npz --json -

The pack holds, for each category, the pose of every video against five references
(`<category>/reference_from_obj_<set>`, (5, N, 4, 4), NaN where missing), as somebody else's
pairwise alignment found it: one mode a pair. Labels are read only to score. About half a minute on
one core.
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
        per_category[category] = accuracies(errors) | {"pairs": len(errors)}
    mean = {
        f"acc{a}": float(np.mean([figures[f"acc{a}"] for figures in per_category.values()]))
        for a in ANGLES
    }
    counts = {
        "pairs": len(scored),
        "labelled_without_alignment": missing,
        "seconds": time.perf_counter() - start,
    }
    return mean | {"auroc": auroc(scored)} | counts | {"categories": per_category}


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
    text = json.dumps(result, indent=2)
    if arguments.json == "-":
        print(text)
    elif arguments.json:
        Path(arguments.json).write_text(text + "\n")


if __name__ == "__main__":
    politely(main)
