"""The estimator node: images in, poses as TF and messages out."""
