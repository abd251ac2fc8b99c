"""The category of toy trucks that the tests of exports share."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeled_category import (
    TrueVideo,
    write_labeled_category,
)


@pytest.fixture(scope="session")
def category(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, TrueVideo]]:
    folder = tmp_path_factory.mktemp("set") / "truck"
    return folder, write_labeled_category(folder)
