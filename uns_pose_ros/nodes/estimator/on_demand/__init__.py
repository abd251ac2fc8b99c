"""What other programs ask the estimator node for: one pose a category, or one answer."""
