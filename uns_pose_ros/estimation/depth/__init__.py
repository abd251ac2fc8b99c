"""Depth images at the objects: they refine poses."""
