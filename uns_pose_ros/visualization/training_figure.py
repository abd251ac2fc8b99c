"""The progress of a training: its losses, and its accuracy on vertices that it does not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

_SIZE = (4.5, 2.6)  # inches


def plot_training(curve: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the curve that the training of a head returns."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    losses = figure.add_subplot(xlabel="step", ylabel="loss, nats")
    for name, values in curve.items():
        if name != "step" and not name.startswith("watched"):
            losses.plot(curve["step"], values, label=name)
    if curve.get("watched_step"):
        right = losses.twinx()
        right.set(ylabel="right, %", ylim=(0, 100))
        right.plot(
            curve["watched_step"],
            curve["watched_accuracy"],
            "k.--",
            label="right where it did not learn",
        )
        losses.plot([], [], "k.--", label="right where it did not learn, %")
    losses.legend(frameon=False, fontsize="small", loc="center right")
    return figure
