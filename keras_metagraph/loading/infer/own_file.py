"""Reads what a file of this package says about its own graph."""

import json
from collections.abc import Mapping
from typing import Any

from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.signatures import signature_defs, tensor_names

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
        return _merged(steps, _parts(meta_graph_def))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None  # damaged: the graph itself still tells most of it


def _parts(meta_graph_def: Any) -> dict[str, Mapping[str, str]]:
    """All tensors of what has several, sparse or ragged, by the first of them."""
    found: dict[str, Mapping[str, str]] = {}
    for signature in signature_defs(meta_graph_def).values():
        for side in (signature.inputs, signature.outputs):
            for key, info in side.items():
                names = tensor_names({key: info})
                if len(names) > 1:
                    found.setdefault(next(iter(names.values())), names)
    return found


def _merged(
    steps: list[Mapping[str, Any]], parts: Mapping[str, Mapping[str, str]]
) -> Interface:
    """Inputs and outputs of the prediction, the rest of the training step."""

    def whole(named: Mapping[str, str] | None) -> dict[str, str]:
        # The description names the first tensor only.
        return {
            name: tensor
            for key, first in (named or {}).items()
            for name, tensor in parts.get(first, {key: first}).items()
        }

    predict, evaluate, train = steps
    inputs: dict[str, str] = {}
    labels: dict[str, str] = {}
    for step in steps:
        inputs = inputs or whole(step.get("inputs"))
        # The graph does not train without its sample weights either.
        taken = {**whole(step.get("labels")), **whole(step.get("sample_weight"))}
        labels = taken or labels
    train_op = train.get("train_op")
    return Interface(
        inputs=inputs,
        outputs=whole(predict.get("outputs")) or whole(evaluate.get("outputs")),
        labels=labels,
        loss=train.get("loss") or evaluate.get("loss"),
        train_op=[train_op] if train_op else [],
    )
