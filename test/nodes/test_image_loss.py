"""How `uns-pose doctor --images` measures the loss of images, and what it advises."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.nodes import image_loss
from uns_pose_ros.nodes.image_loss import (
    ImageLoss,
    TrialImages,
    image_advice,
    image_settings,
    measure_image_loss,
    profiles_file,
)
from uns_pose_ros.nodes.image_trial_process import TrialProcess

FAST, CYCLONE, ZENOH = "rmw_fastrtps_cpp", "rmw_cyclonedds_cpp", "rmw_zenoh_cpp"
LARGE = 2**24  # bytes of a socket
USUAL = 212992  # bytes, as Linux has it


def loss(setting: ImageLoss, lost: int) -> ImageLoss:
    return replace(setting, sent=100, received=100 - lost, rate=30.0, longest_gap=0.05)


@pytest.mark.parametrize(
    ("middleware", "environment", "limit", "names"),
    [
        (FAST, {}, LARGE, ["shared memory of 64 MB", "LARGE_DATA"]),
        (
            FAST,
            {},
            USUAL,
            ["shared memory of 64 MB"],
        ),  # nothing arrives with LARGE_DATA's 4 MB
        (FAST, {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, LARGE, []),
        (FAST, {"FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml"}, LARGE, []),
        (CYCLONE, {}, LARGE, ["receive buffer of 10 MB"]),
        (CYCLONE, {}, USUAL, []),  # Cyclone DDS refuses to start
        (CYCLONE, {"CYCLONEDDS_URI": "file:///mine.xml"}, LARGE, []),
        (ZENOH, {}, USUAL, ["shared memory"]),
        (ZENOH, {"ZENOH_CONFIG_OVERRIDE": "a/shared_memory/enabled=false"}, USUAL, []),
        ("rmw_connextdds", {}, LARGE, []),
    ],
)
def test_every_middleware_has_the_settings_that_work_on_this_machine(
    middleware: str, environment: dict[str, str], limit: int, names: list[str]
) -> None:
    settings = image_settings(middleware, environment, limit)
    assert [s.setting for s in settings[:2]] == ["best effort", "reliable"]
    assert [s.setting.removeprefix("best effort, ") for s in settings[2:]] == names
    assert not any(s.environment for s in settings[:2])


def test_an_override_of_zenoh_is_kept_beside_the_shared_memory() -> None:
    given = {"ZENOH_CONFIG_OVERRIDE": 'mode="client"'}
    *_, shared = image_settings(ZENOH, given, USUAL)
    assert shared.environment == {
        "ZENOH_CONFIG_OVERRIDE": 'mode="client";transport/shared_memory/enabled=true'
    }


@pytest.mark.parametrize(
    ("middleware", "limit", "lost", "parts"),
    [
        (FAST, LARGE, (1, 0), ["no setting is needed"]),
        (
            FAST,
            LARGE,
            (45, 0, 0),
            [
                "every node: export FASTRTPS_DEFAULT_PROFILES_FILE='",
                "if the driver sends reliably",
            ],
        ),
        (FAST, LARGE, (45, 20, 30, 1), ["export FASTDDS_BUILTIN_TRANSPORTS='LARGE_DATA?"]),
        (
            FAST,
            USUAL,
            (45, 20, 30),
            ["net.core.rmem_max=4000000 net.core.wmem", "transport:="],
        ),
        (
            CYCLONE,
            USUAL,
            (45, 20),
            ["sudo sysctl -w net.core.rmem_max=10485760", "smaller or"],
        ),
        (
            ZENOH,
            USUAL,
            (45, 10, 40),
            ["the best is: -p qos_overrides./TOPIC", "smaller or fewer"],
        ),
        (
            ZENOH,
            USUAL,
            (45, 40, 40),
            ["no setting that was tried helps", "smaller or fewer"],
        ),
    ],
)
def test_the_advice_names_the_setting_that_loses_least(
    middleware: str, limit: int, lost: tuple[int, ...], parts: list[str]
) -> None:
    settings = image_settings(middleware, {}, limit)
    losses = [loss(s, n) for s, n in zip(settings, lost, strict=False)]
    lines = image_advice(middleware, losses, limit)
    assert len(lines) == len(parts)
    for line, part in zip(lines, parts, strict=True):
        assert part in line


def test_the_profiles_of_fast_dds_enlarge_the_shared_memory_and_keep_udp() -> None:
    path = profiles_file()
    assert path is not None
    space = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"
    root = ElementTree.parse(path).getroot()
    kinds = [node.text for node in root.iter(f"{space}type")]
    assert kinds == ["SHM", "UDPv4"]
    assert [node.text for node in root.iter(f"{space}segment_size")] == [str(64 * 2**20)]
    assert root.find(f".//{space}participant[@is_default_profile='true']") is not None


def test_images_between_two_processes_are_counted(ros_domain: int) -> None:
    pytest.importorskip("rclpy")
    tried: list[str] = []
    # no more images than the queues hold, so that reliable ones all arrive
    middleware, losses = measure_image_loss(TrialImages(32, 24, 25.0, 0.2), tried.append)
    assert middleware.startswith("rmw_")
    assert [one.setting for one in losses] == tried
    assert losses[1].fault == ""
    assert (losses[1].sent, losses[1].received, losses[1].lost) == (5, 5, 0.0)
    assert 0 < losses[1].rate < 30


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_a_process_that_ends_is_a_fault_with_its_message(
    late: float, ros_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its errors are read later than its end is seen."""
    pytest.importorskip("rclpy")
    collect = TrialProcess._collect

    def collect_late(process: TrialProcess) -> None:
        time.sleep(late)
        collect(process)

    monkeypatch.setattr(TrialProcess, "_collect", collect_late)
    broken = ImageLoss("broken", {"RMW_IMPLEMENTATION": "rmw_none"}, True)
    monkeypatch.setattr(image_loss, "image_settings", lambda *_: [broken])
    _, (failed,) = measure_image_loss(TrialImages(8, 8, 10.0, 0.1))
    assert "the process that should subscribe ended: " in failed.fault
    assert "rmw_none" in failed.fault
    assert (failed.received, failed.lost) == (0, 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrialImages(width=0), "--image-size 0 1080: 1 to 16384 px are valid"),
        (lambda: TrialImages(rate=0.0), "--rate 0: above 0 and up to 1000 is valid"),
        (lambda: TrialImages(seconds=601), "--seconds 601: above 0 and up to 600 is valid"),
    ],
)
def test_images_that_cannot_be_sent_are_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


def test_the_doctor_prints_the_losses_and_the_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = image_settings(FAST, {}, LARGE)
    measured = [loss(settings[0], 45), loss(settings[1], 0), loss(settings[2], 0)]
    unheard = replace(settings[3], fault="no image arrived within 30 s")
    monkeypatch.setattr(
        image_loss, "measure_image_loss", lambda *_: (FAST, [*measured, unheard])
    )
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    assert main.main(["doctor", "--images"]) == 0
    text = capsys.readouterr().out
    assert (
        "1920 x 1080 rgb8 at 30 Hz (187 MB/s) between two processes, rmw_fastrtps_cpp"
        in text
    )
    assert "55 of 100" in text and "no image arrived within 30 s" in text
    assert (
        "load 99.0" in text and "→ set for the camera driver and every node: export" in text
    )
    assert main.main(["doctor", "--images", "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [one["lost"] for one in record["settings"]] == [0.45, 0.0, 0.0, 1.0]
    assert record["advice"]


def test_the_doctor_checks_the_videos_or_the_images_of_this_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main.main(["doctor", str(tmp_path), "--images"]) == 2
    assert (
        "--images: checks the videos or this machine, not both" in capsys.readouterr().err
    )
