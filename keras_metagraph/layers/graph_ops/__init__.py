"""Builds a structured graph as TensorFlow operations, one handler per special node."""
