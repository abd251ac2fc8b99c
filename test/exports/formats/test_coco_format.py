"""COCO's own tools read an export of labels, and its run lengths are those of the mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from label_readers import decode_run_lengths
from labeled_category import write_labeled_category
from uns_pose_ros.exports.formats.coco_format import run_lengths
from uns_pose_ros.exports.label_export import ExportConfig, export_labels


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_give_the_mask_back(seed: int) -> None:
    mask = np.random.default_rng(seed).uniform(size=(5, 3 + seed)) < seed / 7
    counts = run_lengths(mask)
    assert sum(counts) == mask.size and all(length > 0 for length in counts[1:])
    size = list(mask.shape)
    assert (decode_run_lengths({"counts": counts, "size": size}) == mask).all()


def test_the_tools_of_coco_read_boxes_masks_and_keypoints(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    mask_tools = pytest.importorskip("pycocotools.mask")
    write_labeled_category(tmp_path / "truck", {"clip_01": 1}, views=3)
    out = tmp_path / "set"
    export_labels([tmp_path / "truck"], out, ExportConfig("coco"), lambda *_: None)
    path = out / "annotations" / "train.json"
    labels = coco.COCO(str(path))
    assert len(labels.getImgIds()) == 3
    for annotation in labels.loadAnns(labels.getAnnIds()):
        mask = labels.annToMask(annotation)
        assert int(mask.sum()) == annotation["area"]
        box = mask_tools.toBbox(labels.annToRLE(annotation)).tolist()
        assert box == annotation["bbox"]
        image = labels.loadImgs(annotation["image_id"])[0]
        assert mask.shape == (image["height"], image["width"])
    # each label against itself: all are the same object
    scored = [
        {**annotation, "score": 0.9}
        for annotation in json.loads(path.read_text())["annotations"]
    ]
    result = tmp_path / "result.json"
    result.write_text(json.dumps(scored))
    tools = pytest.importorskip("pycocotools.cocoeval")
    for kind in ("bbox", "segm", "keypoints"):
        evaluation = tools.COCOeval(labels, labels.loadRes(str(result)), kind)
        evaluation.params.kpt_oks_sigmas = np.full(8, 0.05)
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        assert evaluation.eval["precision"].max() == 1
        assert evaluation.eval["precision"].min() == 1
