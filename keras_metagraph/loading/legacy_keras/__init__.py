"""Keras 3 models from what Keras 1 and 2 saved."""
