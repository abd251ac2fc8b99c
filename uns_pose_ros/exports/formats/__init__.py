"""A writer for each format of labels."""
