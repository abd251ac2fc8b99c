"""Evaluation of models on public data sets."""
