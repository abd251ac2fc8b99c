"""EstimatorConfig: settings of the search for regions and of the pose solver."""

from __future__ import annotations

from dataclasses import dataclass

from uns_pose_ros.core.runtime_names import RUNTIMES
from uns_pose_ros.core.settings import check_ranges, setting


@dataclass(frozen=True)
class EstimatorConfig:
    """How an image is searched and how poses are solved."""

    search_size: int = setting(
        280,
        "longer side of the image in which objects are searched",
        unit="px",
        low=112,
        high=4096,
        group="search",
        deprecated="search_size",
    )
    crop_margin: float = setting(
        0.15,
        "margin around an object in its crop, as a share of the longer side of its region",
        low=0.0,
        high=1.0,
        group="search",
        deprecated="margin",
    )
    max_instances: int = setting(
        5,
        "largest number of objects of one category in one image",
        low=1,
        high=1000,
        group="search",
        deprecated="max_instances",
    )
    objectness_threshold: float = setting(
        0.5,
        "probability above which a cell shows an object",
        low=0.05,
        high=0.9,
        group="search",
        deprecated="presence",
    )
    min_region_cells: int = setting(
        6,
        "smallest number of connected cells that form an object",
        unit="cells",
        low=1,
        high=50,
        group="search",
        deprecated="least_places",
    )
    merge_gap: float = setting(
        1.0,
        "largest gap between two regions that are also tried as one object, in sides of the "
        "larger region",
        low=0.0,
        high=100.0,
        group="search",
        deprecated="reach",
    )
    nms_iou: float = setting(
        0.4,
        "intersection over union above which two boxes are one object",
        low=0.01,
        high=1.0,
        group="search",
        deprecated="overlap",
    )
    touching_share: float = setting(
        0.2,
        "share of a region's cells beside its pose above which the region is also tried as several "
        "objects that touch; 1: never",
        low=0.02,
        high=1.0,
        group="search",
    )
    second_look: bool = setting(
        True,
        "true: an object that was found in a single image is cut out again, around its first pose, "
        "and solved again; the pose is finer and takes one pass of the backbone more. In streams, "
        "objects are cut out where they are expected anyway",
        group="search",
    )
    score_threshold: float = setting(
        -1.0,
        "smallest score of an estimate; estimates below are not returned; negative: the model's "
        "own, above which few images without an object have an estimate",
        low=-1.0,
        high=0.9,
        group="solver",
        deprecated="score_threshold",
    )
    hypothesis_count: int = setting(
        384,
        "number of correspondence triples that are sampled; each gives two pose hypotheses",
        low=16,
        high=10000,
        group="solver",
        deprecated="triples",
    )
    max_correspondences: int = setting(
        400,
        "largest number of cells of one object that score a hypothesis",
        unit="cells",
        low=50,
        high=10000,
        group="solver",
        deprecated="places",
    )
    top_k_vertices: int = setting(
        12,
        "number of the most probable template vertices that are kept for each cell",
        low=2,
        high=32,
        group="solver",
        deprecated="vertices",
    )
    max_modes: int = setting(
        8,
        "largest number of distinct hypotheses that are refined",
        low=1,
        high=100,
        group="solver",
        deprecated="modes",
    )
    mode_separation_deg: float = setting(
        25.0,
        "smallest rotation between two distinct hypotheses",
        unit="deg",
        low=10.0,
        high=180.0,
        group="solver",
        deprecated="apart",
    )
    outlier_likelihood: float = setting(
        0.1,
        "likelihood of a cell that a pose does not explain",
        low=1e-6,
        high=0.5,
        group="solver",
        deprecated="floor",
    )
    correspondence_sigma_cells: float = setting(
        0.7,
        "standard deviation of a correspondence in the image",
        unit="cells",
        low=0.5,
        high=10.0,
        group="solver",
        deprecated="width",
    )
    shape_variation_deg: float = setting(
        3.0,
        "standard deviation of the rotation between an instance and the template, about each axis",
        unit="deg",
        low=0.0,
        high=180.0,
        group="solver",
        deprecated="variety",
    )
    silhouette_weight: float = setting(
        0.5,
        "weight of visible template parts that project outside the object",
        low=0.0,
        high=10.0,
        group="solver",
        deprecated="coverage",
    )
    coarse_rotation_weight: float = setting(
        0.5,
        "weight of the coarse rotation that all of the object tells at once, beside the "
        "correspondences; 0: none",
        low=0.0,
        high=10.0,
        group="solver",
    )
    hidden_cost: float = setting(
        0.5,
        "largest cost of one visible template part that projects outside the object, in nats: "
        "something may hide it",
        low=0.05,
        high=10.0,
        group="solver",
    )
    depth_refinement: bool = setting(
        True,
        "true: where there is depth, it refines size and pose of an object; false: it gives the "
        "size only, of models that know none",
        group="solver",
    )
    runtime: str = setting(
        "auto",
        "runtime of the backbone: auto (the fastest that is installed, measured once on a "
        "processor), torch (bfloat16 if the processor has it), torch-fp32, "
        "torch-bf16, torch-compile (CUDA), onnx, onnx-int8 (weights of 8 bits) or openvino (the "
        "last three on the CPU)",
        choices=RUNTIMES,
        group="solver",
        deprecated="runtime",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
