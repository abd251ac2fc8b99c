"""The fusion node: one list of objects from the estimators of several cameras."""
