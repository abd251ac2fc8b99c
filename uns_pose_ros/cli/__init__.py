"""The command `uns-pose`, one file per command group."""
