#!/usr/bin/env python3
"""What each part of the method is worth, on one category: a JSON file and a figure for each part.

    python benchmarks/ablations.py demo/data/chair --work /tmp/ablations

CATEGORY has images, masks, sparse and labels.json. Every setting is computed once: a run that was
stopped goes on where it was. The sizes are small, so that all of it takes less than 20 minutes on
two cores; they stand in every JSON file. --brief takes sizes for some minutes, whose figures are
rough; --full takes the sizes of the pipeline.

    alpha_tau     published alignment: weight of appearance x length of the cycle weight
    cycle_weight  both alignments with and without the weight
    references    our alignment: videos that every video is aligned to
    videos        training on 3, 5 and 10 videos (or all but the test videos)
    loss          cross-entropy over vertices against regression of coordinates, by the same PnP
    clutter       training with and without features of the background
    surface       meshes: visual hull against alpha shape, where sparse/ has points

Alignments are scored over all pairs of videos, trainings on the last videos, which are not aligned
and not trained on, with the true box.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from common import DEMO, machine, politely, write
from uns_pose_ros.alignment.category_alignment import AlignConfig, align_videos
from uns_pose_ros.alignment.mesh_batch import shape_frame
from uns_pose_ros.alignment.pairwise import PairConfig
from uns_pose_ros.alignment.published_alignment import (
    PublishedConfig,
    align_to_reference,
    all_view_distances,
    draw_uniformly,
    find_partners,
    published_energies,
)
from uns_pose_ros.core.crops import crop, mask_box, square_around
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, invert, split_similarity, transform
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Video
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.evaluation.metrics import accuracies
from uns_pose_ros.evaluation.rotation_labels import (
    evaluate_alignment,
    fit_label_from_canon,
    load_labels,
)
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import list_videos, load_video, read_frame
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.networks.dinov2 import CHANNELS, DinoV2, imagenet_normalize, load_backbone
from uns_pose_ros.reconstruction.feature_mesh import (
    ReconstructConfig,
    Surface,
    build_feature_mesh,
)
from uns_pose_ros.reconstruction.visual_hull import HullConfig
from uns_pose_ros.training.category_training import train_model
from uns_pose_ros.training.training_views import (
    TrainConfig,
    Views,
    grid_places,
    random_views,
)

KEYS = ("acc30", "acc15", "acc10")
OFF = 1e6  # tau of a cycle weight that is the same for all
WRONG = 180.0  # degrees, of an image without a pose


@dataclass(frozen=True)
class Sizes:
    """How much is computed; the defaults are for two cores and 20 minutes."""

    every: int = 2  # of so many images of a video one is used
    crop: int = 168  # px, of reconstruction and training
    vertices: int = 300
    hypotheses: int = 500
    views: int = 4  # of an image
    steps: int = 250
    batch: int = 16
    held_out: int = 2  # videos for tests
    alphas: tuple[float, ...] = (0.0, 0.2, 0.5, 1.0)
    taus: tuple[float, ...] = (0.3, 0.9, 3.0, OFF)
    references: tuple[int, ...] = (1, 2, 3, 5, 7)
    videos: tuple[int, ...] = (3, 5, 10)

    @property
    def align(self) -> AlignConfig:
        return AlignConfig(pair=PairConfig(hypotheses=self.hypotheses))

    @property
    def published(self) -> PublishedConfig:
        return PublishedConfig(hypotheses=self.hypotheses)

    @property
    def reconstruct(self) -> ReconstructConfig:
        return ReconstructConfig(hull=HullConfig(vertices=self.vertices), size=self.crop)

    @property
    def train(self) -> TrainConfig:
        return TrainConfig(
            size=self.crop, views=self.views, steps=self.steps, batch=self.batch, scenes=0
        )


FULL = Sizes(
    every=1,
    crop=280,
    vertices=500,
    hypotheses=1000,
    views=TrainConfig.views,
    steps=TrainConfig.steps,
    batch=TrainConfig.batch,
)
BRIEF = Sizes(
    every=5,
    crop=112,
    vertices=200,
    hypotheses=300,
    views=3,
    steps=200,
)


class Category:
    """The videos of a category with what is made of them, kept in the work folder."""

    def __init__(self, folder: Path, work: Path, sizes: Sizes) -> None:
        self.work, self.sizes = work, sizes
        folders = list_videos(folder)
        self.labels = load_labels(folder / "labels.json", [f.name for f in folders])
        self.videos = {
            f.name: _thinned(load_video(f), sizes.every)
            for f in folders
            if f.name in self.labels
        }
        if len(self.videos) < sizes.held_out + 2:
            raise InvalidInput(
                f"{folder}: {len(self.videos)} labeled videos, {sizes.held_out + 2} needed"
            )
        self.names = list(self.videos)

    @cached_property
    def backbone(self) -> DinoV2:
        return load_backbone(device="cpu")

    @cached_property
    def hulls(self) -> dict[str, FeatureMesh]:
        return self.meshes("hull")

    def meshes(self, surface: Surface) -> dict[str, FeatureMesh]:
        """The feature meshes of all videos."""
        made = {}
        for name, video in self.videos.items():
            folder = self.work / surface / name
            if not (folder / artifacts.FEATURES).exists():
                config = self.sizes.reconstruct
                mesh = build_feature_mesh(video, self.backbone, config, surface=surface)
                folder.mkdir(parents=True, exist_ok=True)
                artifacts.save_feature_mesh(mesh, folder, {})
            made[name] = artifacts.load_feature_mesh(folder)
        return made

    @property
    def training(self) -> list[str]:
        """Names of the videos that may be trained on."""
        return self.names[: -self.sizes.held_out]

    def align(self, names: Sequence[str]) -> Alignment:
        return align_videos(
            {name: self.hulls[name] for name in names}, self.sizes.align, device="cpu"
        )

    def trained(self, names: Sequence[str], config: TrainConfig, key: str) -> CategoryModel:
        """The model of some videos."""
        path = self.work / f"model_{key}"
        if not (path / artifacts.MODEL).exists():
            videos = {name: self.videos[name] for name in names}
            meshes = {name: self.hulls[name] for name in names}
            alignment = self.align(names)
            model = train_model(key, videos, meshes, alignment, self.backbone, config)
            artifacts.save_model(model, path)
        return artifacts.load_model(path)

    def all_videos(self) -> CategoryModel:
        return self.trained(self.training, self.sizes.train, "all")

    def tests(self) -> Iterator[tuple[Video, Any]]:
        """The frames of the videos that are held out."""
        for name in self.names[-self.sizes.held_out :]:
            video = self.videos[name]
            for frame in video.frames:
                if frame.mask and frame.cam_from_obj is not None:
                    yield video, frame


def _thinned(video: Video, every: int) -> Video:
    return replace(video, frames=video.frames[::every])


Row = dict[str, Any]
Setting = tuple[str, Callable[[], Row]]


def alpha_tau(category: Category) -> Iterator[Setting]:
    """The pairs with the first video, by the same hypotheses for all settings."""
    sizes = category.sizes
    table: list[Tensor] = []  # errors (alphas, taus) of each pair

    def compute() -> Tensor:
        if not table:
            first, *others = category.names
            for name in others:
                table.append(_errors_by_setting(category, first, name))
        return torch.stack(table)

    def rated(i: int, j: int) -> Row:
        return accuracies(compute()[:, i, j])

    for i, alpha in enumerate(sizes.alphas):
        for j, tau in enumerate(sizes.taus):
            label = f"alpha {alpha:g}, tau {'off' if tau == OFF else f'{tau:g}'}"
            yield label, partial(rated, i, j)


def _errors_by_setting(category: Category, first: str, second: str) -> Tensor:
    """Errors (A, T) of one pair, degrees, for all alphas and taus."""
    a, b = category.hulls[first], category.hulls[second]
    unit_from_a, unit_from_b = shape_frame(a.vertices), shape_frame(b.vertices)
    points_a = transform(unit_from_a, a.vertices.double()).float()
    points_b = transform(unit_from_b, b.vertices.double()).float()
    distances = all_view_distances(a, b)
    truth = category.labels[second].T @ category.labels[first]
    sizes = category.sizes
    errors = torch.empty(len(sizes.alphas), len(sizes.taus), dtype=torch.float64)
    for j, tau in enumerate(sizes.taus):
        partners = find_partners(distances, points_a, points_b, tau)
        drawn = draw_uniformly(points_a, points_b, partners, sizes.hypotheses, seed=0)
        near, apart = (
            published_energies(drawn, points_a, points_b, partners, alpha)
            for alpha in (0.0, 1.0)
        )
        for i, alpha in enumerate(sizes.alphas):
            best = drawn[((1 - alpha) * near + alpha * apart).argmin()].double()
            pose = invert(unit_from_b) @ best @ unit_from_a
            errors[i, j] = angle_between(split_similarity(pose)[0], truth)
    return errors


def cycle_weight(category: Category) -> Iterator[Setting]:
    sizes = category.sizes
    for label, tau in (("on", PublishedConfig().tau), ("off", OFF)):
        published = replace(sizes.published, tau=tau)
        ours = replace(sizes.align, pair=replace(sizes.align.pair, tau=tau))
        yield f"published, {label}", partial(_published, category, published)
        yield f"ours, {label}", partial(_ours, category, ours)


def references(category: Category) -> Iterator[Setting]:
    yield "published, 1", lambda: _published(category, category.sizes.published)
    for count in category.sizes.references:
        if count < len(category.names):
            config = replace(category.sizes.align, all_pairs_up_to=0, references=count)
            yield f"ours, {count}", partial(_ours, category, config)
    yield "ours, all pairs", lambda: _ours(category, category.sizes.align)


def surface(category: Category) -> Iterator[Setting]:
    def published_on(config: PublishedConfig, kind: Surface) -> Row:
        return _published(category, config, category.meshes(kind))

    def ours_on(config: AlignConfig, kind: Surface) -> Row:
        return _ours(category, config, category.meshes(kind))

    kinds: tuple[Surface, ...] = ("hull", "alpha")
    for kind in kinds:
        published, ours = category.sizes.published, category.sizes.align
        yield (
            f"published, {kind}",
            partial(published_on, published, kind),
        )
        yield (
            f"ours, {kind}",
            partial(ours_on, ours, kind),
        )


def _published(
    category: Category,
    config: PublishedConfig,
    meshes: Mapping[str, FeatureMesh] | None = None,
) -> Row:
    """The published alignment through the first video."""
    meshes = category.hulls if meshes is None else meshes
    alignment = align_to_reference(meshes, category.names[0], config, device="cpu")
    return evaluate_alignment(alignment, category.labels)


def _ours(
    category: Category,
    config: AlignConfig,
    meshes: Mapping[str, FeatureMesh] | None = None,
) -> Row:
    meshes = category.hulls if meshes is None else meshes
    return evaluate_alignment(align_videos(meshes, config, device="cpu"), category.labels)


def videos(category: Category) -> Iterator[Setting]:
    most = len(category.training)
    for count in sorted({min(count, most) for count in category.sizes.videos}):
        names = category.training[:count]

        def score(names: Sequence[str] = names) -> Row:
            if len(names) == most:
                return _pose_row(category, category.all_videos())
            key = f"{len(names)}_videos"
            return _pose_row(category, category.trained(names, category.sizes.train, key))

        yield f"{count} videos", score


def clutter(category: Category) -> Iterator[Setting]:
    config = replace(category.sizes.train, background=0.0, network=NetworkConfig(clutter=1))
    yield "with clutter", lambda: _pose_row(category, category.all_videos())
    yield (
        "without",
        lambda: _pose_row(
            category, category.trained(category.training, config, "without_clutter")
        ),
    )


def _pose_row(category: Category, model: CategoryModel) -> Row:
    """The estimator's accuracy on the held-out images, with the true box."""
    estimator = Estimator(model, device="cpu")
    estimator.config = replace(estimator.config, score_threshold=0.0)
    label_from_canon = fit_label_from_canon(model, category.labels)
    errors = []
    for video, frame in category.tests():
        image, mask, camera = read_frame(frame)
        assert mask is not None
        found = estimator(image, camera, mask_box(mask)[None])
        true = frame.cam_from_obj[:3, :3] @ category.labels[video.name].T @ label_from_canon
        best = max(found, key=lambda estimate: estimate.score, default=None)
        errors.append(
            WRONG
            if best is None
            else float(angle_between(best.cam_from_canon[:3, :3], true))
        )
    return accuracies(torch.tensor(errors, dtype=torch.float64)) | {"images": len(errors)}


def loss(category: Category) -> Iterator[Setting]:
    yield "cross-entropy", lambda: _pnp_row(category, _expected_points)
    yield "regression", lambda: _pnp_row(category, _regressed_points(category))


Reader = Callable[[LoadedModel, Tensor], tuple[Tensor, Tensor]]


def _expected_points(loaded: LoadedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean canonical point (P, 3) and presence (P,) of the cells, by the vertices' probability."""
    probability, presence = loaded.read(tokens)
    flat, shown = probability.flatten(0, 2).float(), presence.flatten().float()
    points = flat @ loaded.model.vertices / shown[:, None].clamp_min(1e-6)
    return points, shown


def _regressed_points(category: Category) -> Reader:
    """Train the same head to give each cell its coordinates, on the same views."""
    model = category.all_videos()
    names = list(model.training_poses)
    poses = torch.stack(list(model.training_poses.values()))
    config = category.sizes.train
    shapes = [
        (category.hulls[name].vertices, category.hulls[name].triangles) for name in names
    ]
    views = random_views(
        [category.videos[name] for name in names],
        shapes,
        poses,
        torch.ones(len(names)),
        category.backbone,
        config,
    )
    head = fit_regression(views, config)

    def read(loaded: LoadedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
        raw = regress(head, tokens.float()).flatten(0, 2)
        return raw[:, :3], raw[:, 3].sigmoid()

    return read


def regress(head: Head, tokens: Tensor) -> Tensor:
    """Coordinates and logit of the presence (B, 2h, 2w, 4), by a head of four features."""
    x = head.enter(head.norm(tokens)).permute(0, 3, 1, 2)
    x = functional.interpolate(
        head.coarse(x), scale_factor=2, mode="bilinear", align_corners=False
    )
    return head.leave(head.fine(x)).permute(0, 2, 3, 1)


def fit_regression(views: Views, config: TrainConfig, seed: int = 0) -> Head:
    """Train a head by the smooth L1 distance of coordinates, steps and batches as `fit_head`."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = replace(config.network, features=4)
    head = Head(network, 1, len(network.layers) * CHANNELS)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.15
    )
    for _ in range(config.steps):
        pick = torch.multinomial(views.weight, config.batch, True, generator=generator)
        kept = torch.rand(config.batch, views.tokens.shape[-1], generator=generator)
        kept = (kept >= config.dropout) / (1 - config.dropout)
        tokens = views.tokens[pick].float() * kept[:, None, None]
        raw = regress(head, tokens).flatten(1, 2)
        canon, background = views.canon[pick].float(), views.background[pick]
        shown = canon[..., 0].isfinite()
        known = shown | background
        value = functional.smooth_l1_loss(raw[..., :3][shown], canon[shown], beta=0.05)
        presence = functional.binary_cross_entropy_with_logits(
            raw[..., 3][known], shown[known].float()
        )
        optimizer.zero_grad(set_to_none=True)
        (10 * value + config.background * presence).backward()
        optimizer.step()
        schedule.step()
    return head.eval().requires_grad_(False)


@torch.no_grad()
def _pnp_row(category: Category, reader: Reader) -> Row:
    """Accuracy on the held-out images of OpenCV's PnP on the points that a reader gives."""
    model = category.all_videos()
    loaded = LoadedModel(model, torch.device("cpu"), halved=False)
    label_from_canon = fit_label_from_canon(model, category.labels)
    places = grid_places(loaded.crop_size).numpy()
    errors = []
    for video, frame in category.tests():
        image, mask, camera = read_frame(frame)
        assert mask is not None
        square = square_around(mask_box(mask)[None], 0.1)
        crops, maps = crop(image.permute(2, 0, 1), square, loaded.crop_size)
        tokens = category.backbone(imagenet_normalize(crops), layers=loaded.layers)
        points, presence = reader(loaded, tokens.permute(1, 2, 3, 0, 4).flatten(3).float())
        true = frame.cam_from_obj[:3, :3] @ category.labels[video.name].T @ label_from_canon
        used = (presence > 0.5).numpy()
        matrix = (maps[0] @ camera.matrix).numpy()
        errors.append(_pnp_error(points.numpy()[used], places[used], matrix, true))
    return accuracies(torch.tensor(errors, dtype=torch.float64)) | {"images": len(errors)}


def _pnp_error(points: Any, pixels: Any, matrix: Any, true: Tensor) -> float:
    if len(points) < 6:
        return WRONG
    cv2.setRNGSeed(0)
    done, vector, _, _ = cv2.solvePnPRansac(
        points.astype("float64"),
        pixels,
        matrix,
        None,
        iterationsCount=500,
        reprojectionError=8.0,
        flags=cv2.SOLVEPNP_EPNP,
    )
    if not done:
        return WRONG
    rotation = torch.from_numpy(cv2.Rodrigues(vector)[0])
    return float(angle_between(rotation, true))


ABLATIONS: dict[str, Callable[[Category], Iterator[Setting]]] = {
    "alpha_tau": alpha_tau,
    "cycle_weight": cycle_weight,
    "references": references,
    "surface": surface,
    "videos": videos,
    "loss": loss,
    "clutter": clutter,
}


def run_ablation(name: str, category: Category) -> dict[str, Any]:
    """Compute the settings of an ablation that its JSON file lacks, and draw its figure."""
    path = category.work / f"{name}.json"
    sizes = json.loads(json.dumps(asdict(category.sizes)))
    wanted = {"ablation": name, "videos": category.names, "sizes": sizes}
    record: dict[str, Any] = {**wanted, "rows": {}}
    if path.exists():
        record = json.loads(path.read_text())
        if {key: record.get(key) for key in wanted} != wanted:
            raise InvalidInput(
                f"{path}: made of other videos or sizes; another --work is valid"
            )
    for label, compute in ABLATIONS[name](category):
        if label in record["rows"]:
            continue
        start = time.process_time()
        try:
            row = compute()
        except InvalidInput as error:
            row = {"left_out": str(error)}
        record["rows"][label] = row | {"cpu_seconds": time.process_time() - start}
        record["machine"] = machine()
        write(record, str(path))
        print(f"{name}: {line_of(label, row)}", file=sys.stderr)
    draw(record).savefig(path.with_suffix(".png"), dpi=120)
    return record


def line_of(label: str, row: Mapping[str, Any]) -> str:
    if "left_out" in row:
        return f"{label}: left out: {row['left_out']}"
    accurate = "/".join(f"{row[key]:.0f}" for key in KEYS)
    return f"{label}: {accurate} @30/@15/@10, median {row['median_deg']:.1f}°"


def draw(record: Mapping[str, Any]) -> Figure:
    """Bars of the accuracies of all settings."""
    rows = {k: row for k, row in record["rows"].items() if "left_out" not in row}
    figure = Figure(figsize=(5, 0.8 + 0.35 * max(len(rows), 1)), layout="constrained")
    axes = figure.add_subplot(xlabel="percent", title=record["ablation"], xlim=(0, 100))
    for k, key in enumerate(KEYS):
        places = [i + 0.27 * (k - 1) for i in range(len(rows))]
        axes.barh(places, [row[key] for row in rows.values()], 0.25, label=f"@{key[3:]}°")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize="small")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("category", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--work", type=Path, required=True, help="folder for all files")
    parser.add_argument("--only", help="names of ablations, comma separated")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--full", action="store_true", help="sizes of the pipeline")
    chosen.add_argument("--brief", action="store_true", help="sizes for some minutes")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(ABLATIONS)
    if unknown := [name for name in names if name not in ABLATIONS]:
        raise InvalidInput(f"--only {', '.join(unknown)}: {', '.join(ABLATIONS)} are valid")
    args.work.mkdir(parents=True, exist_ok=True)
    sizes = FULL if args.full else BRIEF if args.brief else Sizes()
    category = Category(args.category, args.work, sizes)
    for name in names:
        for label, row in run_ablation(name, category)["rows"].items():
            print(f"{name:14} {line_of(label, row)}")


if __name__ == "__main__":
    politely(main)
