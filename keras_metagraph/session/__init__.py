"""Runs graphs as TensorFlow 1's `Session.run` did."""
