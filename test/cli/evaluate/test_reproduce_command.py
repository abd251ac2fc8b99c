"""The paper's chain on miniatures of CO3D and PASCAL3D+; what computes is replaced."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import paper_chain
from paper_chain import DIED, stand_in_chain, write_chain
from uns_pose_ros.cli import main
from uns_pose_ros.cli.evaluate import paper_shares
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.pipeline import reproduction
from uns_pose_ros.training import category_training


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command; everything that computes takes no time."""
    stand_in_chain(monkeypatch.setattr, tmp_path)
    return write_chain(tmp_path)


def test_the_plan_says_what_it_takes_before_anything_starts(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*words, "--plan"]) == main.DONE
    said = capsys.readouterr().out
    # three imports, one reconstruct, and three commands for two references and the consensus
    assert "1 categories, 3 videos, 13 steps, 13 of them left" in said and "GB" in said
    assert not (tmp_path / "out" / "videos").exists()


def test_a_stopped_chain_goes_on_and_gives_the_table(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, trained = category_training.train_model, list[int]()

    def stop_at_the_second(*arguments: Any) -> Any:
        trained.append(1)
        if len(trained) == 2:
            raise KeyboardInterrupt
        model, alignment = train(*arguments), arguments[3]
        poses = zip(alignment.videos, alignment.canon_from_obj.tolist(), strict=True)
        return replace(
            model, provenance={**model.provenance, "canon_from_obj": dict(poses)}
        )

    monkeypatch.setattr(category_training, "train_model", stop_at_the_second)
    assert main.main(words) == main.INTERRUPTED
    videos = tmp_path / "out" / "videos" / "car"
    # the references, then the best cameras
    names = sorted(path.name for path in videos.iterdir() if (path / "images").is_dir())
    assert names == ["101_1_2", "102_1_2", "104_1_2"]
    first = tmp_path / "out" / "results" / "car_101_1_2.json"
    before = first.stat().st_mtime_ns
    made = {path: path.stat().st_mtime_ns for path in videos.glob("*/video.json")}
    capsys.readouterr()
    assert main.main([*words, "--json", "-"]) == main.DONE
    record = json.loads(capsys.readouterr().out)
    assert len(trained) == 4  # two before, one of them stopped, and two after
    assert first.stat().st_mtime_ns == before
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert list(record["categories"]["car"]) == ["101_1_2", "102_1_2", "consensus"]
    assert record["steps"] == 13
    assert record["detected"]["published_std"]["acc30"] == 0
    assert main.main(words) == main.DONE  # nothing is left but the table
    assert "references, as published" in capsys.readouterr().out
    assert len(trained) == 4


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({}, "is needed"),
        ({"boat": {"a": {}}}, "'boat' is no category in"),
        ({"car": {}}, "labels of car: one for each reference is needed"),
        ({"car": {"999_1_2": {}}}, "999_1_2 is no sequence with images"),
        ({"car": {"101_1_2": {"canon_from_obj": 3}}}, "has no 3x3 rotation"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_anything_starts(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    labels: dict[str, Any],
    said: str,
) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert main.main(words) == main.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_disk_without_space_is_said_before_anything_starts(tmp_path: Path) -> None:
    plan = reproduction.PaperPlan({}, {}, 10**11)
    with pytest.raises(InvalidInput, match="GB are free, .* GB are needed"):
        reproduction.check_disk(plan, tmp_path)


def test_two_processes_share_the_categories_and_one_that_is_killed_is_replaced(
    tmp_path: Path,
) -> None:
    words = write_chain(tmp_path, ("car", "bus"))
    started = [
        subprocess.Popen(
            [sys.executable, paper_chain.__file__, str(tmp_path), *words, "--json", "-"],
            env={
                **os.environ,
                **{"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (out, err), (_, err_of_1) = (process.communicate(timeout=600) for process in started)
    assert [process.returncode for process in started] == [main.DONE, -9], err + err_of_1
    record = json.loads(out)
    assert record["categories"].keys() == {"car", "bus"}
    assert record["processes"] == 2
    assert all(
        list(variants) == ["101_1_2", "102_1_2", "consensus"]
        for variants in record["categories"].values()
    )
    # each of the three imports of a category was done once, by the one or the other
    imports = [
        line.split()[1:] for line in (err + err_of_1).splitlines() if " import " in line
    ]
    assert len(imports) == 6 and len({tuple(line) for line in imports}) == 6
    assert (tmp_path / DIED).exists()
    assert sum("[1] uns-pose train" in line for line in err_of_1.splitlines()) == 1


def test_the_processes_of_torchrun_share_the_categories_and_give_one_table(
    tmp_path: Path,
) -> None:
    words = write_chain(tmp_path, ("car", "bus"))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    table = tmp_path / "table.json"
    given = [paper_chain.__file__, str(tmp_path), *words, "--json", str(table)]
    hidden = {"RANK", "WORLD_SIZE", "LOCAL_RANK"}
    done = subprocess.run(
        [sys.executable, *launch, *given],
        env={key: value for key, value in os.environ.items() if key not in hidden},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(table.read_text())
    assert record["categories"].keys() == {"car", "bus"}
    assert record["processes"] == 2
    # each category was the work of one process
    lines = [line for line in done.stderr.splitlines() if "] uns-pose train " in line]
    trained = {(line[: line.index("]")][-1], line.split("/")[-1]) for line in lines}
    assert len(lines) == 6 and len(trained) == 2
    assert {process for process, _ in trained} == {"0", "1"}


def test_categories_are_jobs_of_a_cluster_and_one_whose_process_is_killed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    words = [*write_chain(tmp_path, ("car", "bus")), "--cluster", "local"]
    paths = [path for path in sys.path if path]

    def do_with_stand_ins(common: Any, category: str) -> str:
        sys.path[:0] = paths
        helpers = importlib.import_module("paper_chain")
        helpers.stand_in_chain(setattr, tmp_path / f"process_{category}")
        if category == "bus":
            helpers.die_once(tmp_path / helpers.DIED)
        shares = importlib.import_module("uns_pose_ros.cli.evaluate.paper_shares")
        text: str = shares.do_category(common, category)
        return text

    monkeypatch.setattr(paper_shares, "do_category", do_with_stand_ins)
    (tmp_path / "pascal" / "Images" / "car_imagenet" / "n00.JPEG").write_bytes(b"broken")
    assert main.main(words) == main.BAD_INPUT
    last = capsys.readouterr().err.splitlines()[-1]
    assert "car: uns-pose evaluate dataset: " in last and "n00.JPEG" in last
    assert (tmp_path / DIED).exists()
    done = sorted(path.name for path in (tmp_path / "out" / "results").glob("*.json"))
    assert done == [f"bus_{name}.json" for name in ("101_1_2", "102_1_2", "consensus")]


def test_a_machine_that_does_not_see_the_data_is_named(tmp_path: Path) -> None:
    plan = reproduction.PaperPlan({}, {}, 0)
    said = paper_shares.do_category((plan, [tmp_path / "co3d"], tmp_path), "car")
    assert "does not see" in said and "co3d" in said


def test_torchrun_and_a_cluster_exclude_each_other(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert main.main([*words, "--cluster", "local"]) == main.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "torchrun or --cluster is valid" in line


def test_what_is_done_takes_no_more_time_and_processes_take_the_next_category() -> None:
    def steps(*seconds: float) -> tuple[reproduction.PaperStep, ...]:
        return tuple(reproduction.PaperStep(("train",), None, value) for value in seconds)

    here, missing = Path(__file__), Path("/nowhere")
    plan = reproduction.PaperPlan(
        {"car": steps(1, 2), "bus": steps(5), "tv": steps(4)},
        {"car": {"a": missing}, "bus": {"a": here}, "tv": {"a": missing}},
        videos=10,
    )
    assert plan.seconds() == 12
    assert plan.seconds(2) == 7  # car and tv, beside bus
    assert plan.seconds(left=True) == 7
    assert plan.seconds(3, left=True) == 4
    assert plan.disk(2) - plan.disk(1) == plan.disk(3) - plan.disk(2) > 0
    assert plan.disk(9) == plan.disk(3)


def test_a_result_that_is_no_share_in_percent_is_refused(tmp_path: Path) -> None:
    row = {"acc30": 90.0, "acc15": 80.0, "acc10": 1e300}
    path = tmp_path / "car_consensus.json"
    path.write_text(
        json.dumps({"categories": {"car": {"detected": row, "true_crop": row}}})
    )
    with pytest.raises(
        InvalidInput, match=r"car_consensus.json: no result of `evaluate data"
    ):
        reproduction._figures_of(path)


def test_a_quality_that_is_no_score_ranks_a_sequence_last(tmp_path: Path) -> None:
    ranking = [("1", 10**400), ("2", 0.5), ("3", "good"), ("4", 1.5)]
    items = [{"sequence_name": n, "viewpoint_quality_score": score} for n, score in ranking]
    for name, _ in ranking:
        (tmp_path / name / "images").mkdir(parents=True)
    with gzip.open(tmp_path / "sequence_annotations.jgz", "wt") as file:
        json.dump(items, file)
    assert reproduction.rank_sequences(tmp_path) == ["4", "2", "1", "3"]
