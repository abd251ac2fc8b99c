"""Neural networks, each whole in one file, and their pretrained weights."""
