"""Domains that tests lease."""

from __future__ import annotations

from pathlib import Path

from ros_domains import remove_unfinished_ports


def test_ports_that_a_killed_process_left_empty_do_not_stop_the_next_test(
    tmp_path: Path,
) -> None:
    made = {
        "fastrtps_port28669": b"",  # of domain 85
        "fastrtps_port28660": b"in use",
        "fastrtps_port28669_el": b"",  # a lock, which is empty in any case
        "fastrtps_port28900": b"",  # of domain 86
    }
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    remove_unfinished_ports(85, tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == made.keys() - {"fastrtps_port28669"}
