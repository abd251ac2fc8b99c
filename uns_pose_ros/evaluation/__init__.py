"""Accuracy against labels, in images and in recorded bags."""
