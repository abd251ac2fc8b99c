"""What a benchmark lacks is said in one line.

Its figures come from rounds that see the same machine.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from label_readers import iterate_objects, overlap, paint_model, read_labels
from labeled_category import write_labeled_category
from small_model import one_triangle
from streams import HALF_TURN, estimate, noisy, orbit
from synthetic_meshes import feature_mesh
from uns_pose_ros.alignment import pairwise
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.mesh_batch import ShapeConfig, build_mesh_batch
from uns_pose_ros.alignment.pairs import hypothesis_energy
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.published_alignment import PublishedConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.types import PoseEstimate, PoseMode, Symmetry
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.evaluation.bag_figures import FrameResult
from uns_pose_ros.evaluation.poses.pose_evaluation import ImageResult
from uns_pose_ros.io.artifacts import load_alignment

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("name", "said"), [("estimate.py", "no model there"), ("", "nowhere")]
)
def test_what_is_missing_is_said_in_one_line(name: str, said: str) -> None:
    words = ["--category", "/nowhere"] if not name else ["/nowhere"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *words], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (
        done.stderr.startswith("error: ")
        and done.stderr.count("\n") == 1
        and said in done.stderr
    )


def test_a_set_of_images_that_the_real_world_has_not_is_named() -> None:
    command = [sys.executable, str(BENCHMARKS / "real_world.py"), "/nowhere"]
    command += ["--work", "/nowhere/work", "--sets", "mug,boat"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "error: --sets boat: mug, mug-bare, car, horse, car-rooms, horse-rooms are valid\n"
    )


def test_an_image_without_an_answer_is_wrong_and_still_has_a_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import real_world

    def result(
        score: float | None, error: float, inside: bool | None = None
    ) -> ImageResult:
        estimate = None
        if score is not None:
            pose = torch.eye(4, dtype=torch.float64)
            three, box = pose[:3, 0], pose[:, 0]
            estimate = PoseEstimate(
                "mug", pose, 1.0, False, three, score, None, Symmetry(), 9, 1.0, box
            )
        return ImageResult("clip", "1.jpg", estimate, error, error, 0.0, inside)

    answered = [result(0.9, 5, True), result(0.8, 50, False), result(0.7, 20, True)]
    missed = real_world.Pair(result(None, 180), result(0.1, 12))
    pairs = [*(real_world.Pair(one, one) for one in answered), missed]
    figures = real_world.summarize(pairs)
    assert (figures["images"], figures["answered"], figures["wrong"]) == (4, 75, 1)
    assert (figures["acc30"], figures["acc30_without_threshold"]) == (50, 75)
    assert figures["auroc"] == pytest.approx(1 / 3)  # of three right ones one scores higher
    assert figures["region95"] == pytest.approx(200 / 3)
    assert "mug" in real_world.table({"mug": {"plain": figures, "false_percent": 0.0}})


def test_ratios_are_medians_over_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    # the machine is ten times as slow in the second round
    assert common.ratio({"a": [2.0, 20.0, 2.4], "b": [1.0, 10.0, 2.0]}, "a", "b") == 2.0
    assert common.milliseconds([0.001, 0.003, 0.002]) == {
        "p50": 2.0,
        "p95": 2.9,
        "max": 3.0,
    }
    calls: list[str] = []
    seconds = common.rounds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, warm=1
    )
    assert calls == ["a", "b"] * 4
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_the_benchmark_of_estimates_runs_at_size_one(chair_model: Path) -> None:
    words = [chair_model, "--rounds", 1, "--objects", 1, "--sizes", 112, "--json", "-"]
    command = [sys.executable, str(BENCHMARKS / "estimate.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-1000:]
    record = json.loads(done.stdout)
    assert record["machine"]["processor"]
    assert record["estimate"]


def test_the_terms_of_the_energy_are_the_default_and_those_of_a_literal_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import energy_terms

    meshes = [feature_mesh(seed)[0] for seed in (0, 1)]
    shapes = build_mesh_batch({"a": meshes[0], "b": meshes[1]}, ShapeConfig(cells=16))
    a, b = shapes.take(torch.tensor([0])), shapes.take(torch.tensor([1]))
    distances = torch.rand(1, 200, 200, generator=torch.Generator().manual_seed(0))
    weights = (torch.ones(1, 200), torch.linspace(0, 2, 200)[None])
    poses = torch.eye(4).repeat(1, 3, 1, 1)
    poses[0, :, :3, 3] = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.3, 0.2]])
    config = PairConfig()

    def energies(vertices: int | None, **terms: float) -> torch.Tensor:
        some = energy_terms.Terms(**terms)
        words = (poses, a, b, distances, weights, config, vertices)
        return energy_terms.term_energies(some, *words)

    for vertices in (None, 64):
        default = hypothesis_energy.energies(
            poses, a, b, distances, weights, config, vertices
        )
        torch.testing.assert_close(energies(vertices, features=1.0), default)
    there = (a.points[0, None] + poses[0, :, None, :3, 3]) - b.points[0][
        distances[0].argmin(1)
    ]
    back = (b.points[0, None] - poses[0, :, None, :3, 3]) - a.points[0][
        distances[0].argmin(0)
    ]
    for cut in (math.inf, 0.1):
        both = there.norm(dim=2).clamp(max=cut).mean(1)
        both = both + back.norm(dim=2).clamp(max=cut) @ weights[1][0] / 200
        found = energies(None, space=1.0, cut=cut) - energies(None, cut=cut)
        torch.testing.assert_close(found[0], config.alpha * both / 2)


def test_the_benchmark_of_alignments_compares_and_goes_on_where_it_was_stopped(
    trucks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import alignment

    few = PublishedConfig(hypotheses=20, steps=1)
    monkeypatch.setattr(alignment, "METHODS", {"published": few})
    made = load_alignment(trucks / "alignment.json")
    monkeypatch.setattr(alignment, "align_videos", lambda *_, **__: made)
    words = Namespace(
        categories=[trucks],
        labels=None,
        seeds=1,
        terms=False,
        pairs=1,
        consensus=True,
        json=str(trucks / "out.json"),
    )
    figures = alignment.benchmark(words)
    record = figures["categories"]["truck"]
    assert record["published"]["pairs"]["seconds_per_pair"] > 0
    assert record["published"]["pairs"]["count"] == 2
    assert record["ours"]["category"]["acc30"] >= 0
    assert alignment.table(figures).count("\n") == 1
    with monkeypatch.context() as patch:
        patch.setattr(alignment, "run_seed", None)  # must not be called again
        assert alignment.benchmark(words)["categories"]["truck"] == record
    words.seeds = 2
    figures = alignment.benchmark(words)
    assert figures["runs"]["truck"]["1"]["reference"] == "clip_02"
    assert figures["categories"]["truck"]["published"]["pairs"]["count"] == 4
    words.terms = True
    with pytest.raises(InvalidInput, match="made with other settings"):
        alignment.benchmark(words)


def test_terms_that_were_compared_are_not_compared_again(
    trucks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import alignment
    import energy_terms

    kept = ("features", "space")
    some = {name: energy_terms.TERMS[name] for name in kept}
    monkeypatch.setattr(energy_terms, "TERMS", some)
    made = load_alignment(trucks / "alignment.json")
    monkeypatch.setattr(energy_terms, "align_videos", lambda *_, **__: made)
    meshes, labels = alignment.load_category(trucks, None)
    config = AlignConfig(pair=PairConfig(hypotheses=40))
    first = energy_terms.compare_terms(meshes, labels, 0, 2, False, {}, config)
    assert [len(row["errors"]) for row in first.values()] == [2, 2]
    monkeypatch.setattr(pairwise, "align_pairs", None)
    both = energy_terms.compare_terms(meshes, labels, 0, 2, True, first, config)
    assert both["space"]["errors"] == first["space"]["errors"]
    figures = {"categories": {"truck": energy_terms.summarize_terms({"0": both})}}
    assert alignment.table(figures).count("\n") == 1
    assert "consensus" in alignment.table(figures)


def test_a_frame_at_its_true_place_has_no_distance_and_a_shift_is_in_diameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import frames

    instance = 0.2 * torch.nn.functional.normalize(
        torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    instance = torch.cat([instance, torch.tensor([[0.3, 0.0, 0.0]])]).double()
    unit = torch.eye(3, dtype=torch.float64)
    truth = frames.true_place(instance, unit, unit[0])
    assert truth.place.tolist() == pytest.approx([0.3, 0.0, 0.0])
    assert truth.extent.diameter == pytest.approx(0.5, abs=0.01)

    cam_from_obj = torch.eye(4, dtype=torch.float64)
    cam_from_obj[2, 3] = 2.0
    diameter = truth.extent.diameter
    pose = cam_from_obj.clone()
    pose[:3, 3] *= 0.8 / diameter  # a diameter is 0.8 canonical units
    place = truth.place * 0.8 / diameter
    handle = NamedFrame("tested", place, unit)
    covariance = 1e-4 * torch.eye(6, dtype=torch.float64)
    box = torch.zeros(4, dtype=torch.float64)
    size = torch.ones(3, dtype=torch.float64)
    one = PoseEstimate(
        "mug", pose, 1.0, False, size, 0.9, covariance, Symmetry(), 9, 1.0, box
    )
    center = truth.extent.center * 0.8 / diameter

    def distance(moved: PoseEstimate) -> frames.Distance:
        [placed] = carry_frames(moved, [handle])
        return frames.measure(placed, moved, truth, cam_from_obj, center, 0.8, "clip")

    right = distance(one)
    assert right.whole == pytest.approx(0.0, abs=1e-6) and right.inside
    farther = pose.clone()
    farther[:3, 3] *= 1.1
    far = distance(dataclasses.replace(one, cam_from_canon=farther))
    assert far.whole == pytest.approx(0.1 * 2.0 / diameter, rel=0.05) and not far.inside
    assert far.at_distance < 0.05 * far.whole + 0.06
    aside = pose.clone()
    aside[1, 3] += 0.08
    moved = distance(dataclasses.replace(one, cam_from_canon=aside))
    assert moved.whole == pytest.approx(0.1, abs=1e-3)
    assert moved.across == pytest.approx(0.1, abs=2e-3)
    summary = frames.summarize([right, far])
    assert summary["within10"] == 50.0 and summary["region95"] == 50.0


def test_the_benchmark_of_labels_writes_every_format_at_size_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import label_export

    truth = write_labeled_category(tmp_path / "truck", {"clip_01": 1})["clip_01"]
    rotation = truth.unit * truth.canon_from_obj[:3, :3]
    labels = {"clip_01": {"canon_from_obj": rotation.tolist()}}
    (tmp_path / "truck" / "labels.json").write_text(json.dumps(labels))
    lens = label_export.LENSES["lens"]
    large = label_export.enlarge(tmp_path / "truck", tmp_path / "large", 160, lens, 2)
    figures = label_export.benchmark(large, 2, tmp_path / "out")
    assert figures["size"] == [160, 120]
    kinds = set(figures) - {"size"}
    assert kinds == {"bop", "coco", "yolo-pose", "nerfstudio", "foundationpose"}
    assert all(figures[kind]["images"] == 2 for kind in kinds)
    named = {"machine": {"processor": "Z80", "cores": 1, "load_average": 0}, "toy": figures}
    lines = label_export.table(named).splitlines()
    assert lines[0] == "export labels, on Z80, 1 cores, load 0"
    assert [line.split()[0] for line in lines[2:]] == list(label_export.FORMATS)
    for image, thing in iterate_objects(read_labels(tmp_path / "out" / "bop")):
        assert thing.mask is not None
        assert overlap(paint_model(image, thing), thing.mask) > 0.6


@pytest.mark.parametrize(
    ("flags", "limit", "name"),
    [
        ("sse2 avx2 avx512f amx_bf16", "", "AMX"),
        ("sse2 avx2 avx512f amx_bf16", "AVX2", "AVX2"),
        ("sse2 avx2 avx512f amx_bf16", "AVX512_CORE_BF16", "AVX512"),
        ("sse2 avx2 avx512f amx_bf16", "AVX512_CORE_AMX", "AMX"),
        ("sse2 avx2", "AVX512_CORE", "AVX2"),
        ("sse2 avx2", "", "AVX2"),
    ],
)
def test_the_instruction_set_is_that_of_the_processor_within_the_limit(
    flags: str, limit: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    lines = ["model name : some processor", f"flags : fpu {flags} ht"]
    assert common.instruction_set(lines, {"ONEDNN_MAX_CPU_ISA": limit}) == name


def test_more_cameras_have_fewer_errors_and_one_that_is_killed_and_back_costs_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cameras

    model = one_triangle("car", diameter=0.2)
    generator = torch.Generator().manual_seed(0)
    results = []
    for number, cam_from_obj in enumerate(orbit(12, 30.0)):
        flipped = number % 4 == 1  # and the right pose is an alternative
        truth = noisy(cam_from_obj, generator)
        wrong = estimate(truth @ HALF_TURN, 0.4, (PoseMode(truth, -0.5),))
        seen = wrong if flipped else estimate(truth, 0.8)
        place = torch.linalg.inv(cam_from_obj)
        results.append(
            FrameResult(
                number, f"camera_{number}", (seen,), (0,), 0.0, cam_from_obj, None, place
            )
        )
    turn = torch.eye(4, dtype=torch.float64)
    assert cameras.camera_groups(12, 3)[1] == [1, 5, 9]
    rows = {
        count: cameras.rates(
            cameras.group_errors(results, cameras.camera_groups(12, count), model, turn)
        )
        for count in (1, 2)
    }
    assert rows[1]["errors30"] == 25.0
    assert rows[2]["errors30"] == 0.0
    assert rows[2]["errors10"] < rows[1]["errors10"]
    errors, numbers = cameras.kill_camera(results[:3], model, turn)
    assert (len(errors), numbers) == (9, 1)
    sized = cameras.with_size(results)
    assert all(one.metric for each in sized for one in each.estimates)
