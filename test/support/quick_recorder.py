"""The recorder node as a process, with diagnostics and a status that come often."""

from __future__ import annotations

import sys

from uns_pose_ros.nodes import managed_node
from uns_pose_ros.nodes.recorder.recorder_node import run_recorder

PERIOD = 0.2  # s between two of them, for which many tests wait

if __name__ == "__main__":
    managed_node.PERIOD = PERIOD
    sys.exit(run_recorder(sys.argv))
