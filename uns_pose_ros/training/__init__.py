"""From aligned videos to a category model."""
