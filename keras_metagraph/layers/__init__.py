"""Keras layers that run parts of TensorFlow 1 graphs."""
