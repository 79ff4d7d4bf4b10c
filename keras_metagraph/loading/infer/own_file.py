"""Reads what a file of this package says about its own graph."""

import json
from collections.abc import Mapping
from typing import Any

from keras_metagraph.loading.infer.interface import Interface

_COLLECTION = "keras_metagraph"


def own_interface(meta_graph_def: Any) -> Interface | None:
    """The interface that a file of this package describes.

    Args:
        meta_graph_def: The MetaGraph.

    Returns:
        Inputs, outputs, labels, loss and train op; `None` for the files of others.
    """
    if _COLLECTION not in meta_graph_def.collection_def:
        return None
    values = meta_graph_def.collection_def[_COLLECTION].bytes_list.value
    try:
        graphs = json.loads(values[0])["graphs"]
        steps = [graphs.get(name) or {} for name in ("predict", "eval", "train")]
        return _merged(steps)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None  # damaged: the graph itself still tells most of it


def _merged(steps: list[Mapping[str, Any]]) -> Interface:
    """Inputs and outputs of the prediction, the rest of the training step."""
    predict, evaluate, train = steps
    inputs: dict[str, str] = {}
    labels: dict[str, str] = {}
    for step in steps:
        inputs = inputs or dict(step.get("inputs") or {})
        labels = dict(step.get("labels") or {}) or labels
    train_op = train.get("train_op")
    return Interface(
        inputs=inputs,
        outputs=dict(predict.get("outputs") or evaluate.get("outputs") or {}),
        labels=labels,
        loss=train.get("loss") or evaluate.get("loss"),
        train_op=[train_op] if train_op else [],
    )
