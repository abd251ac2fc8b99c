"""An object of a recording is recognized by its tokens, and other instances are not."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from plain_views import plain_views
from uns_pose_ros.estimation.taught_head import mean_of_object
from uns_pose_ros.training.adaptation.recognition_training import learn_recognition
from uns_pose_ros.training.training_views import Views

CHANNELS = 384
GENERATOR = torch.Generator().manual_seed(3)
# what the tokens of all instances, and those of each, have in common
CATEGORY, *INSTANCES = torch.randn(8, CHANNELS, generator=GENERATOR)


def views_of(instances: list[int], count: int = 12) -> Views:
    """Views whose tokens show an instance in their upper half; `video` numbers the instances."""
    which = torch.arange(len(instances)).repeat_interleave(count)
    tokens = torch.randn(len(which), 4, 4, CHANNELS, generator=GENERATOR)
    shown = CATEGORY + torch.stack(INSTANCES)[torch.tensor(instances)[which]]
    tokens[:, :2] = tokens[:, :2] + shown[:, None, None]
    canon = torch.full((len(which), 64, 3), torch.nan)
    canon[:, :32] = 0.0
    views = plain_views(tokens, canon, canon[..., 0].isnan())
    return replace(views, video=which)


def recognized(learned: tuple[Tensor, Tensor], instance: int) -> Tensor:
    """(N,) bool: whether an object is recognized in views of an instance."""
    weight, bias = learned
    shown = torch.zeros(12, 4, 4, dtype=torch.bool)
    shown[:, :2] = True
    result: Tensor = mean_of_object(views_of([instance]).tokens, shown) @ weight + bias > 0
    return result


def test_the_object_is_recognized_and_no_other_instance_is() -> None:
    learned = learn_recognition(views_of([0]), views_of([2, 3, 4, 5]))
    assert recognized(learned, 0).all()
    assert not recognized(learned, 2).any(), "one of the training"
    assert not recognized(learned, 6).any(), "one that nothing has learned from"


def test_one_other_instance_is_enough_to_tell_them_apart() -> None:
    learned = learn_recognition(views_of([0]), views_of([2]))
    assert recognized(learned, 0).all() and not recognized(learned, 2).any()


def test_an_object_of_which_nothing_is_seen_is_never_recognized() -> None:
    views = views_of([0])
    unseen = replace(views, canon=torch.full_like(views.canon, torch.nan))
    none = plain_views(views.tokens[:0], views.canon[:0], views.background[:0])
    for own in (unseen, none):
        learned = learn_recognition(own, views_of([2, 3]))
        assert not recognized(learned, 0).any()
