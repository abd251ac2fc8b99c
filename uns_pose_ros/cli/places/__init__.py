"""Commands that bring the places of a robot to a model."""
