"""Checkpoints: names on disk, writing, reading, and which are kept."""
