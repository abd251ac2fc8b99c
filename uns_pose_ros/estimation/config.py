"""EstimatorConfig: settings of search, correspondences and scoring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EstimatorConfig:
    """How an image is searched and how poses are found."""

    search_size: int = 280  # px, longer side of the image in which objects are looked for
    margin: float = 0.15  # of the longer side, left around an object in its crop
    max_instances: int = 5  # a category and image
    presence: float = 0.5  # probability above which a place shows an object
    least_places: int = 6  # connected places that make an object
    score_threshold: float = 0.22  # estimates below are not returned
    triples: int = 384  # hypotheses are twice as many
    places: int = 400  # of the object that hypotheses are judged by, at most
    vertices: int = 12  # likeliest ones kept a place
    modes: int = 8  # distinct hypotheses that are refined
    apart: float = 25.0  # degrees between two of them
    floor: float = 0.1  # likelihood of a place that a pose does not explain
    width: float = 0.7  # cells of the head's grid, standard deviation of a correspondence
    # degrees about each axis, standard deviation by which instances differ from the template
    variety: float = 3.0
    coverage: float = 0.5  # weight of template parts that are seen where the object is not
    # gap between parts of an image, in sides of the larger one, up to which they are tried as one
    # object
    reach: float = 1.0
    # of two boxes, intersection over union, above which they are one object
    overlap: float = 0.4
    # of the backbone: torch, torch-fp32, torch-bf16, torch-compile, onnx or openvino
    runtime: str = "torch"
