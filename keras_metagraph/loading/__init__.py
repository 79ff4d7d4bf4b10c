"""Loads models from meta graphs."""
