"""Evaluation of the poses of labeled images."""
