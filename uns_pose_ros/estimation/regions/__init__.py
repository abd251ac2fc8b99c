"""Regions of an image that show objects: connected cells, neighbors, and objects that touch."""
