"""The command that adapts a model to a recording of a robot's own places."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from uns_pose_ros.cli.arguments import Device, Json, Seed
from uns_pose_ros.cli.console import emit, figure, progress_bar, table
from uns_pose_ros.cli.model_commands import Model
from uns_pose_ros.core.device import choose_device, choose_precision
from uns_pose_ros.networks.dinov2 import load_backbone
from uns_pose_ros.pipeline.adaptation import Adaptation, AdaptConfig, adapt_model
from uns_pose_ros.training.adaptation.judgment import HeldOutFigures


def adapt_command(
    model: Model,
    bag: Annotated[
        Positional[Path],
        arg(
            metavar="BAG",
            help="rosbag2 recording in which objects of the category stand still",
        ),
    ],
    config: OmitArgPrefixes[AdaptConfig],
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Adapt a model to a recording without labels; it is kept only if it becomes better.

    The camera moves around objects at rest. Poses of all images, fused in --fixed-frame, teach each
    image of the first two thirds of a track. The last third decides: more of its single images must
    agree with the fused pose. What an object teaches is used for this object alone: the videos of
    the training, beside the model, tell it from others. The model before stays beside it, as
    MODEL.before-adapt.
    """
    kind = choose_precision(choose_device(device))
    backbone = load_backbone(device=device, precision=kind)
    with progress_bar() as progress:
        answer = adapt_model(model, bag, config, backbone, seed, device, progress)
    emit(_record(answer), _text(model, answer), json)


def _record(answer: Adaptation) -> dict[str, Any]:
    judgment = answer.choice.judgment
    return {
        "kept": answer.kept,
        "reason": answer.choice.reason,
        "images": answer.images,
        "taught": answer.taught,
        "held_out": answer.held_out,
        "objects": [
            {
                "position": thing.fixed_from_canon[:3, 3].tolist(),
                "diameter_m": thing.scale,
                "images": len(thing.sightings),
            }
            for thing in answer.objects
        ],
        "left_out": answer.left_out,
        "not_better": answer.choice.not_better,
        # against the fused poses of the model before, and of the adapted one
        "before": None if judgment is None else judgment.before,
        "after": None if judgment is None else judgment.after,
        "estimates_of_nothing": answer.choice.false,
        "model_before": None if answer.before is None else str(answer.before),
    }


def _text(model: Path, answer: Adaptation) -> str:
    lines = [
        f"{len(answer.objects)} objects at rest in {answer.images} images; {answer.taught} images "
        f"taught, {answer.held_out} judged"
    ]
    lines += [f"  left out: {why}: {count}" for why, count in answer.left_out.items()]
    choice = answer.choice
    if dict(choice.not_better) != {choice.reason: 1}:  # which the last line tells
        lines += [f"  not kept: {why}: {count}" for why, count in choice.not_better.items()]
    if choice.judgment is not None:
        rows = [
            _row("before", choice.judgment.before[0], choice.false[0]),
            _row("adapted", choice.judgment.after[0], choice.false[1]),
        ]
        head = ["held-out images", "answered %", "@30° %", "@15° %", "@10° %", "median °"]
        lines.append(table([*head, "of nothing"], rows))
    if choice.reason:
        lines.append(f"{model}: not kept, the model is as before: {choice.reason}")
    else:
        lines.append(f"{model}: adapted; the model before is {answer.before}")
    return "\n".join(lines)


def _row(name: str, figures: HeldOutFigures, false: float) -> list[str]:
    values = (figures.answered, figures.acc30, figures.acc15, figures.acc10)
    cells = [figure(value) for value in (*values, figures.median_deg)]
    return [name, *cells, figure(false, 2)]
