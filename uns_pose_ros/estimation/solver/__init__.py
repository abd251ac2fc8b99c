"""The poses of crops: hypotheses, their refinement, and what speaks for the best one."""
