"""Commands that measure models, each in a file of its own."""
