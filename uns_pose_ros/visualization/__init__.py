"""Poses, meshes and curves drawn into images, figures and a browser."""
