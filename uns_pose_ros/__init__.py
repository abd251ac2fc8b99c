"""Category-level 3D pose without labels, CAD models or depth, as a ROS 2 package."""

import os

# Threads that wait for each other spin for microseconds, then sleep: on a processor that others use
# too, longer spinning once
# made an estimate 15 times slower. Read when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

__version__ = "0.1.0"
