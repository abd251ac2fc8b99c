"""Category-level 3D pose without labels, CAD models or depth, as a ROS 2 package."""

__version__ = "0.1.0"
