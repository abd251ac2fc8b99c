"""Commands that run the stages on a category folder, each in a file of its own."""
