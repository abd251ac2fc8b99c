"""The paper's chain as a plan: sequences of CO3D to models, and the models to PASCAL3D+.

Sommer et al., CVPR 2024: each category is aligned to each of its hand-labeled references, and a
model is trained and measured for each; the tables are means over the categories, then over the
references. One more alignment, by consensus, is ours.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uns_pose_ros.capture.import_co3d import read_annotations
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.datasets.catalog import DATASETS
from uns_pose_ros.datasets.pascal3d import read_names
from uns_pose_ros.evaluation.metrics import ANGLES
from uns_pose_ros.evaluation.rotation_labels import load_labels
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.artifacts import read_json, write_json
from uns_pose_ros.io.given_files import is_entry_name

CONSENSUS = "consensus"
MOST_REFERENCES = 5
_RANKING = "sequence_annotations.jgz"
# measured on two cores of a processor, roughly: s
_PER_IMPORT, _PER_MESH = 10.0, 50.0
_PER_PAIR, _PER_TRAINED, _PER_IMAGE = 2.0, 30.0, 3.0
_MOST_SCORE = 1e9  # of a sequence; a larger one is no score
_LEAST_TRAINING = 200.0  # s
_BYTES_PER_VIDEO, _BYTES_OF_TRAINING = 25e6, 3e9


@dataclass(frozen=True)
class PaperStep:
    """One command of the chain."""

    words: tuple[str, ...]  # of `uns-pose`
    result: Path | None  # the step is done where this exists; None: the command knows
    seconds: float = 0.0  # on two cores, roughly
    made: tuple[
        Path, ...
    ] = ()  # what a command that knows by itself has made if it is done

    @property
    def is_done(self) -> bool:
        """Whether the step need not run."""
        return self.result is not None and self.result.exists()

    @property
    def seconds_left(self) -> float:
        """What it still takes, roughly."""
        made = bool(self.made) and all(path.exists() for path in self.made)
        return 0.0 if self.is_done or made else self.seconds


@dataclass(frozen=True)
class PaperPlan:
    """All steps, and what they cost."""

    by_category: dict[str, tuple[PaperStep, ...]]
    # by category and variant: JSON of `evaluate dataset`
    results: dict[str, dict[str, Path]]
    videos: int

    @property
    def steps(self) -> tuple[PaperStep, ...]:
        """All steps, in order."""
        return tuple(step for steps in self.by_category.values() for step in steps)

    @property
    def left(self) -> tuple[PaperStep, ...]:
        """The steps of the categories that are not done."""
        return tuple(
            step
            for category, steps in self.by_category.items()
            for step in steps
            if not self.is_done(category) and not step.is_done
        )

    def is_done(self, category: str) -> bool:
        """Whether all results of a category are there."""
        return all(path.exists() for path in self.results[category].values())

    def seconds(self, processes: int = 1, *, left: bool = False) -> float:
        """How long all of it takes with some processes of two cores each, roughly.

        Args:
            processes: Their number; each takes the next category when it has done one.
            left: Count only what is not done yet.
        """
        busy = [0.0] * max(1, processes)
        for category, steps in self.by_category.items():
            if not left:
                took = sum(step.seconds for step in steps)
            elif self.is_done(category):
                took = 0.0
            else:
                took = sum(step.seconds_left for step in steps)
            busy[busy.index(min(busy))] += took
        return max(busy)

    def disk(self, processes: int = 1) -> float:
        """Bytes that it takes, at most at one time."""
        trainings = max(1, min(processes, len(self.by_category)))
        return self.videos * _BYTES_PER_VIDEO + trainings * _BYTES_OF_TRAINING


def plan_paper(
    co3d: Path,
    pascal3d: Path,
    labels: Path,
    into: Path,
    videos: int,
    options: Sequence[str] = (),
    most: int | None = None,
    cluster: str | None = None,
) -> PaperPlan:
    """Plan the chain of all categories in a file of labels.

    Args:
        co3d: Folder of CO3D version 2.
        pascal3d: Folder of PASCAL3D+.
        labels: {"CATEGORY": {"SEQUENCE": {"canon_from_obj": 3x3 rotation}, …}, …} by CO3D's names;
            the first five sequences of a category are its references.
        into: Folder for videos, models and results.
        videos: Number of videos of each category: the labeled ones, then the best by CO3D's
            viewpoint_quality_score.
        options: Words for every command that trains or estimates, such as --device cuda.
        most: Number of images of each category that are evaluated; None: all.
        cluster: Address of a Ray cluster for the pairs of the consensus; None: they are done here.

    Raises:
        InvalidInput: A file or a sequence is missing.
    """
    record = read_json(labels)
    if not isinstance(record, dict) or not record:
        raise InvalidInput(
            f'{labels}: {{"CATEGORY": {{"SEQUENCE": {{"canon_from_obj": 3x3 rotation}}, …}}, …}} '
            "is needed"
        )
    entry = DATASETS["pascal3d"]
    by_category = dict[str, tuple[PaperStep, ...]]()
    results, count = dict[str, dict[str, Path]](), 0
    for category in record:
        if not is_entry_name(category) or not (co3d / category).is_dir():
            raise InvalidInput(f"{labels}: {category!r} is no category in {co3d}")
        target = entry.category_of(category, "pascal3d")
        listed = pascal3d / "Image_sets" / f"{target}_imagenet_{entry.splits[0]}.txt"
        images = len(read_names(listed))
        images = images if most is None else min(images, most)
        sequences = rank_sequences(co3d / category)
        files = _write_labels(into / "labels", category, record[category], sequences)
        rest = [name for name in sequences if name not in record[category]]
        names = [*record[category], *rest][: max(videos, len(record[category]))]
        folder = into / "videos" / category
        steps = [
            PaperStep(
                ("import", str(co3d / category / name), "--into", str(folder / name)),
                folder / name / "video.json",
                _PER_IMPORT,
            )
            for name in names
        ]
        meshes = tuple(folder / name / artifacts.FEATURES for name in names)
        words = ("reconstruct", str(folder), *options)
        steps.append(PaperStep(words, None, len(names) * _PER_MESH, meshes))
        results[category] = {}
        for variant, truth in files.items():
            result = into / "results" / f"{category}_{variant}.json"
            results[category][variant] = result
            method: tuple[str, ...] = ("--method", "published", "--reference", variant)
            pairs = len(names)
            if variant == CONSENSUS:
                pairs = len(names) * (len(names) - 1) // 2
            if variant == CONSENSUS:
                method = () if cluster is None else ("--cluster", cluster)
            measure = [
                *("evaluate", "dataset", "pascal3d", str(pascal3d)),
                *("--model", str(folder / "model"), "--category", target),
                *("--labels", str(truth), "--json", str(result), *options),
                *(() if most is None else ("--most", str(most))),
            ]
            steps += [
                PaperStep(("align", str(folder), *method), result, pairs * _PER_PAIR),
                PaperStep(
                    ("train", str(folder), *options),
                    result,
                    max(_LEAST_TRAINING, len(names) * _PER_TRAINED),
                ),
                PaperStep(tuple(measure), result, images * _PER_IMAGE),
            ]
        by_category[category] = tuple(steps)
        count += len(names)
    return PaperPlan(by_category, results, count)


def rank_sequences(category: Path) -> list[str]:
    """The sequences of a category that have images, the best cameras first."""
    scored = list[tuple[float, str]]()
    for item in read_annotations(category / _RANKING):
        name, score = item["sequence_name"], item.get("viewpoint_quality_score")
        if isinstance(name, str) and is_entry_name(name):
            rank = -math.inf
            if isinstance(score, int | float) and abs(score) < _MOST_SCORE:
                rank = float(score)
            if (category / name / "images").is_dir():
                scored.append((-rank, name))
    return [name for _, name in sorted(scored)]


def _write_labels(
    folder: Path, category: str, labels: Any, sequences: Sequence[str]
) -> dict[str, Path]:
    """A file of labels for each reference, and one with all of them for the consensus."""
    whole = folder / f"{category}_{CONSENSUS}.json"
    if not isinstance(labels, dict) or not labels:
        raise InvalidInput(f"labels of {category}: one for each reference is needed")
    missing = [name for name in labels if name not in sequences]
    if missing:
        raise InvalidInput(
            f"labels of {category}: {shorten(missing)} is no sequence with images in CO3D's "
            f"{_RANKING}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    files = dict[str, Path]()
    for name in list(labels)[:MOST_REFERENCES]:
        files[name] = folder / f"{category}_{name}.json"
        write_json(files[name], {name: labels[name]})
    files[CONSENSUS] = whole
    write_json(whole, labels)
    load_labels(whole, sequences)
    return files


def check_disk(plan: PaperPlan, into: Path, processes: int = 1) -> None:
    """Raise InvalidInput where the disk has less space than the plan needs."""
    free, needed = shutil.disk_usage(into).free, plan.disk(processes)
    if free < needed:
        raise InvalidInput(
            f"{into}: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are needed; fewer "
            "--videos, or another --into"
        )


def summarize_paper(plan: PaperPlan) -> dict[str, Any]:
    """The paper's table: mean over the categories, then mean and spread over the references.

    Raises:
        InvalidInput: A result is missing or broken.
    """
    figures: dict[str, Any] = {"categories": {}}
    for category, variants in plan.results.items():
        figures["categories"][category] = {
            name: _figures_of(path) for name, path in variants.items()
        }
    by_category = list(figures["categories"].values())
    count = min(len(variants) - 1 for variants in by_category)
    for row in ("detected", "true_crop"):
        of_references = [
            _mean([list(variants.values())[k][row] for variants in by_category])
            for k in range(count)
        ]
        figures[row] = {
            "published": _mean(of_references),
            "published_std": {
                key: float(
                    torch.tensor([one[key] for one in of_references]).std(correction=0)
                )
                for key in of_references[0]
            },
            CONSENSUS: _mean([variants[CONSENSUS][row] for variants in by_category]),
        }
    return figures


def _figures_of(path: Path) -> dict[str, dict[str, float]]:
    record = read_json(path)
    try:
        (values,) = record["categories"].values()
        return {
            row: {f"acc{angle}": _percent(values[row][f"acc{angle}"]) for angle in ANGLES}
            for row in ("detected", "true_crop")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidInput(
            f"{path}: no result of `evaluate dataset`; delete it, then run the command again"
        ) from None


def _percent(value: Any) -> float:
    if isinstance(value, bool) or not 0 <= value <= 100:
        raise ValueError(f"{value} is no share in percent")
    return float(value)


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
