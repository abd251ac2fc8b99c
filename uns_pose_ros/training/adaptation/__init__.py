"""Adaptation of a model to the places of a robot, without labels."""
