"""Conversions between MetaGraphs, SavedModels and the files of Keras."""

from keras_metagraph.conversion.api import convert
from keras_metagraph.conversion.report import ConversionReport

__all__ = ["ConversionReport", "convert"]
