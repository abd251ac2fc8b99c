"""Poses of one object in several images become one pose."""
