"""The files of a COLMAP model, each as rows: camera models, text and binary."""
