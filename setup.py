"""Build description for colcon (ament_python) and pip alike."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "uns_pose_ros"
RUNTIMES = ["onnx", "onnxruntime", "openvino"]
PIPELINE = [
    "scikit-image",
    "fast-simplification",
    "matplotlib",
    "onnxruntime",
    "rosbags",
    "jinja2",
]

setup(
    name=NAME,
    version="0.1.0",
    description="Category-level 3D pose without labels, CAD models or depth, as a ROS 2 package",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    maintainer="uns_pose_ros maintainers",
    maintainer_email="maintainers@example.com",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"], f"{NAME}.reporting": ["templates/*.jinja"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*"))),
    ],
    python_requires=">=3.10",
    install_requires=[
        "torch",
        "numpy",
        "scipy",
        "opencv-python-headless",
        "pillow",
        "safetensors",
        "msgspec",
        "tyro",
        "filelock>=4.1",
        "PyYAML",
    ],
    extras_require={
        "pipeline": PIPELINE,
        "sfm": ['pycolmap>=4.2; platform_machine == "x86_64"'],
        "runtimes": RUNTIMES,
        "cluster": ["ray"],
        "docs": ["mkdocs-material"],
        "view": ["viser"],
        "rerun": ["rerun-sdk>=0.24"],
        "heic": ["pillow-heif"],  # images of phones
        "test": [
            "pytest",
            "pytest-cov",
            "pytest-xdist",
            "pytest-timeout",
            "ruff",
            "mypy",
            "ray",
            "trimesh",  # benchmarks
            "viser",
            *PIPELINE,
            *RUNTIMES,
        ],
    },
    entry_points={
        "console_scripts": [
            "uns-pose = uns_pose_ros.cli.main:main",
            "uns-pose-bringup = uns_pose_ros.nodes.entry_points:bringup",
            "estimator = uns_pose_ros.nodes.entry_points:estimator",
            "recorder = uns_pose_ros.nodes.entry_points:recorder",
            "fusion = uns_pose_ros.nodes.entry_points:fusion",
            "camera_player = uns_pose_ros.nodes.entry_points:camera_player",
        ],
    },
    zip_safe=True,
)
