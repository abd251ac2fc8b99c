"""The stages on a category folder, and what is already up to date."""
