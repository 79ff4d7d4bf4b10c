"""Writes SavedModels: several MetaGraphs over one checkpoint, with assets."""
