"""Category-level 3D pose without labels, CAD models or depth, as a ROS 2 package."""

import os

# Threads that wait for each other do not spin: on a processor that others use too, spinning made an estimate 15 times slower.
# Read when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
