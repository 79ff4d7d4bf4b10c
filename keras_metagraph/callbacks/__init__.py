"""The callback that writes MetaGraphs while a model is fitted."""

from keras_metagraph.callbacks.meta_graph_checkpoint import (
    MetaGraphCheckpoint as MetaGraphCheckpoint,
)
