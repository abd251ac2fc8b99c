"""The report shows the labels of every video, and says what is left out and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labeled_category import write_labeled_category
from uns_pose_ros.io.images import read_image
from uns_pose_ros.reporting import category_report
from uns_pose_ros.reporting.label_preview import LabelPreview, preview_labels


def shown(category: Path) -> LabelPreview:
    return preview_labels(category, lambda what, done, total: None)


def test_labels_of_some_frames_are_drawn_with_the_line_that_strikes_them_out(
    tmp_path: Path,
) -> None:
    write_labeled_category(tmp_path, {"clip_01": 1, "clip_02": 2}, views=8)
    (tmp_path / "exclude.txt").write_text("clip_01/000000.jpg\n")
    (tmp_path / "clip_02" / "video.json").write_text('{"metric": false}')
    preview = shown(tmp_path)
    assert [(v.name, v.frames, v.metric) for v in preview.videos] == [
        ("clip_01", 7, True),
        ("clip_02", 8, False),
    ]
    captions = [image.caption for image in preview.videos[0].images]
    assert len(captions) == 6
    assert (captions[0], captions[-1]) == ("clip_01/000001.jpg", "clip_01/000007.jpg")
    source = read_image(tmp_path / captions[0].replace("/", "/images/")).numpy()
    changed = (preview.videos[0].images[0].image != source).any(-1)
    assert 0.02 < np.mean(changed) < 0.5
    page = str(category_report._labels_section(preview))
    assert "left out: frames struck out in exclude.txt: 1 (clip_01/000000.jpg)" in page
    assert "no known unit" in page and page.count("<figure") == 12


def test_a_category_without_labels_shows_the_reason(tmp_path: Path) -> None:
    write_labeled_category(tmp_path, {"clip_01": 1}, views=3)
    (tmp_path / "exclude.txt").write_text("clip_01\n")
    preview = shown(tmp_path)
    assert "struck out in exclude.txt: 1" in preview.fault
    assert preview.fault in str(category_report._labels_section(preview))
    assert "not looked at" in str(category_report._labels_section(None))
