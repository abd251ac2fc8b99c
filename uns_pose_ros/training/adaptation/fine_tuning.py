"""Fine-tuning of a copy of a model's head on an object of a recording, for this object alone."""

from __future__ import annotations

from uns_pose_ros.core.types import CategoryModel, Progress, TaughtObject
from uns_pose_ros.networks.correspondence_head import Head
from uns_pose_ros.training.adaptation.pseudo_labels import join_views
from uns_pose_ros.training.adaptation.recognition_training import learn_recognition
from uns_pose_ros.training.head_training import fit_head
from uns_pose_ros.training.training_views import TrainConfig, Views

_NEW = 0.7  # share of what is new in a training that replays what is known


def fine_tune(
    model: CategoryModel,
    views: Views,
    replay: Views,
    config: TrainConfig,
    seed: int = 0,
    progress: Progress | None = None,
) -> TaughtObject:
    """Train a copy of a model's head on an object, on the device of its views.

    Args:
        model: The model.
        views: Views of the object, in the order of the images.
        replay: Views of other instances that the model has learned from before. Some of each batch
            are of them, and the object is told from them.
        config: Settings.
        seed: Seed of the batches.
        progress: Receives the number of steps that are done.
    """
    device = views.tokens.device
    head = Head(config.network, len(model.vertices), views.tokens.shape[-1])
    known = {"vertex_features": model.vertex_features}
    known["background_features"] = model.background_features
    head.load({**model.head, **known})
    head, _ = fit_head(
        join_views([views, replay], [_NEW, 1 - _NEW]),
        model.vertices,
        model.symmetry,
        config,
        seed,
        progress,
        device,
        initial=head.to(device),
    )
    weights = {name: tensor.detach().cpu() for name, tensor in head.named_parameters()}
    return TaughtObject(weights, *learn_recognition(views, replay, seed))
