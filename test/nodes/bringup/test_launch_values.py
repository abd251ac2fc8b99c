"""Values of launch arguments become parameters, topics and commands, without any ROS."""

from __future__ import annotations

from pathlib import Path

import pytest

import house
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.nodes.bringup import launch_values

ESTIMATOR = dict.fromkeys(
    [
        *("device", "regions", "transport", "rectified", "frame_prefix", "fixed_frame"),
        *("object_diameter", "models", "detections_2d", "mask", "depth"),
    ],
    "",
)
RECORDER = dict.fromkeys(
    ["clip", "fixed_frame", "transport", "rectified", "category", "depth"], ""
)


def test_empty_arguments_leave_every_parameter_to_the_parameter_file() -> None:
    assert launch_values.estimator_parameters(ESTIMATOR) == ({}, [])
    assert launch_values.recorder_parameters({**RECORDER, "record": "false"}) == (
        {"record": False},
        [],
    )


def test_each_of_several_cameras_has_the_topics_of_its_namespace() -> None:
    given = {
        "cameras": "left, /right/",
        "models": "/mug/model",
        "fixed_frame": "map",
        "device": "",
        "object_diameter": "0.2",
        "image": "image_raw",
        "camera_info": "/shared/info",
        "depth": "depth/image",
    }
    assert launch_values.camera_names(given) == ["left", "right"]
    own = launch_values.camera_values(given, "right")
    assert [own[name] for name in ("name", "namespace", "image", "camera_info")] == [
        "estimator",
        "right",
        "/right/image_raw",
        "/shared/info",
    ]
    parameters, remappings = launch_values.estimator_parameters(own)
    assert parameters == {
        "models": ["/mug/model"],
        "tracking.fixed_frame": "map",
        "object_diameter": 0.2,
        "use_depth": True,
        "depth_transport": "raw",
    }
    assert remappings == [("depth", "/right/depth/image")]
    for cameras in ("", "left,", "left,left"):
        with pytest.raises(InvalidInput, match="different namespaces"):
            launch_values.camera_names({"cameras": cameras})


def test_arguments_of_the_estimator_become_parameters_of_their_types(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    given = {
        "models": "~/mug/model, /shoe/model,",
        "device": "cpu",
        "regions": "mask",
        "transport": "compressed",
        "rectified": "True",
        "frame_prefix": "left/",
        "object_diameter": "0.4",
        "fixed_frame": "odom",
        "mask": "/seg/mask",
        "depth": "/cam/depth/compressedDepth",
    }
    parameters, remappings = launch_values.estimator_parameters({**ESTIMATOR, **given})
    assert parameters == {
        "models": ["/home/robot/mug/model", "/shoe/model"],
        "device": "cpu",
        "regions": "mask",
        "transport": "compressed",
        "rectified": True,
        "frame_prefix": "left/",
        "object_diameter": 0.4,
        "tracking.fixed_frame": "odom",
        "use_depth": True,
        "depth_transport": "compressed",
    }
    assert remappings == [
        ("mask", "/seg/mask"),
        ("depth/compressedDepth", "/cam/depth/compressedDepth"),
    ]


def test_arguments_of_the_recorder_become_parameters_of_their_types() -> None:
    given = {
        "category": "/data/mug",
        "clip": "7",
        "fixed_frame": "map",
        "record": "1",
        "depth": "/d",
    }
    parameters, remappings = launch_values.recorder_parameters({**RECORDER, **given})
    assert parameters == {
        "category": "/data/mug",
        "clip": "7",
        "fixed_frame": "map",
        "record": True,
        "depth": "raw",
    }
    assert remappings == [("depth", "/d")]


@pytest.mark.parametrize("text", ["yes", "maybe", "", "2", "on"])
def test_a_flag_that_is_neither_true_nor_false_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="record:=.*true or false is valid"):
        launch_values.read_flag({"record": text}, "record")


@pytest.mark.parametrize("text", ["big", "nan", "inf", "1,5", ""])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="object_diameter:=.*a number is valid"):
        launch_values.read_number({"object_diameter": text}, "object_diameter")


def test_a_parameter_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"params_file:=/nope.yaml: no such file"):
        launch_values.existing_path({"params_file": "/nope.yaml"}, "params_file")
    with pytest.raises(InvalidInput):
        launch_values.existing_path({"params_file": str(tmp_path)}, "params_file")


@pytest.mark.parametrize(
    ("namespace", "topic", "absolute"),
    [
        ("", "image", "/image"),
        ("left", "image", "/left/image"),
        ("/left/", "image", "/left/image"),
        ("/", "image", "/image"),
        ("left", "/camera/image_raw", "/camera/image_raw"),
    ],
)
def test_a_topic_is_looked_for_where_the_node_subscribes(
    namespace: str, topic: str, absolute: str
) -> None:
    assert launch_values.absolute_topic({"namespace": namespace}, topic) == absolute
    assert launch_values.own_name({"namespace": "/a/b", "name": "eye"}) == "/a/b/eye"


def bag(folder: Path, **given: str) -> dict[str, str]:
    """Return arguments of replay.launch.py with a bag that exists."""
    return {"bag": str(folder), "rate": "1.0", "delay": "1.0", "loop": "false", **given}


def test_the_player_gets_only_the_options_that_it_accepts(tmp_path: Path) -> None:
    command = launch_values.play_command(bag(tmp_path, rate="2"))
    start = ["ros2", "bag", "play", str(tmp_path), "--clock", "--rate"]
    assert command == [*start, "2.0", "--delay", "1.0"]
    # `ros2 bag play --delay 0` is an error
    command = launch_values.play_command(bag(tmp_path, delay="0", loop="true"))
    assert command == [*start, "1.0", "--loop"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bag": "/nope.mcap"}, "bag:=/nope.mcap: no such file"),
        ({"rate": "0"}, "rate:=0: a number above 0 is valid"),
        ({"delay": "-1"}, "delay:=-1: 0 or more is valid"),
        ({"loop": "often"}, "loop:=often: true or false is valid"),
        ({"rate": "fast"}, "rate:=fast: a number is valid"),
    ],
)
def test_what_the_player_cannot_do_is_refused_before_anything_starts(
    tmp_path: Path, given: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        launch_values.play_command(bag(tmp_path, **given))


def test_launch_files_need_no_package_that_the_systems_python_lacks() -> None:
    files = house.module_files()
    todo = {name for name in files if name.startswith("nodes.bringup")}
    seen = set[str]()
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= house.imported_modules(files[name], files) - seen
    outside = {
        full.split(".")[0] for name in seen for full in house.imported_names(files[name])
    }
    assert {"launch", "launch_ros"} <= outside
    assert not outside & {"torch", "numpy", "scipy", "cv2", "safetensors", "tyro", "PIL"}


CAMERA = {"source": "", "camera": "", "rate": "", "loop": "true", "frame_id": "eye"}


def test_the_camera_player_gets_the_arguments_that_are_given(tmp_path: Path) -> None:
    (tmp_path / "K.json").touch()
    given = {**CAMERA, "source": str(tmp_path)}
    assert launch_values.camera_arguments(given) == [str(tmp_path), "--frame-id", "eye"]
    given |= {"camera": str(tmp_path / "K.json"), "rate": "2.5", "loop": "false"}
    assert launch_values.camera_arguments(given)[3:] == [
        "--camera",
        str(tmp_path / "K.json"),
        "--rate",
        "2.5",
        "--once",
    ]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"source": "/nope.mp4"}, "source:=/nope.mp4: no such file"),
        ({"camera": "/nope.json"}, "camera:=/nope.json: no such file"),
        ({"rate": "0"}, "rate:=0: a number above 0 is valid"),
        ({"loop": "often"}, "loop:=often: true or false is valid"),
    ],
)
def test_what_the_camera_player_cannot_do_is_refused_before_it_starts(
    wrong: dict[str, str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        launch_values.camera_arguments({**CAMERA, "source": str(tmp_path), **wrong})
