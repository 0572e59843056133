"""Importance fitted to the prediction, after FastSHAP (arXiv 2107.07436)."""
