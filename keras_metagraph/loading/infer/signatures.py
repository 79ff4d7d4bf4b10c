"""Chooses the signature that says what a graph takes and gives."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from keras_metagraph.errors import FormatError, SignatureError, nearest
from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.loading.infer import session_bundle

_DEFAULT = "serving_default"
_PREFERRED = ("predict", "prediction", "predictions", "serving", "default", "inference")
# TF2 SavedModels keep initializers and train ops under these names.
_RESERVED_PREFIX = "__saved_model_"
_TRAIN_OP = f"{_RESERVED_PREFIX}train_op"
TRAINING_METHOD = "tensorflow/supervised/training"
"""Method name of signatures that train (TF `signature_constants.py`)."""
# What tf.estimator puts before the keys of a supervised signature's outputs.
_PREDICTIONS, _METRICS = "predictions/", "metrics/"
_SESSION_BUNDLE = "serving_signatures"


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature of a MetaGraph, with plain tensors.

    Attributes:
        name: Its key in the file.
        method: Its method name; empty in a session_bundle.
        inputs: Tensors by key; a sparse tensor is three.
        outputs: Tensors by key.
        missing: What it names and the graph does not have.
    """

    name: str
    method: str
    inputs: dict[str, TensorName]
    outputs: dict[str, TensorName]
    missing: tuple[str, ...] = ()

    @property
    def loss(self) -> TensorName | None:
        """The loss, where it describes a training or evaluation graph."""
        return self.outputs.get("loss")

    @property
    def predictions(self) -> dict[str, TensorName]:
        """The outputs that are predictions: neither loss nor metrics."""
        found = {
            key.removeprefix(_PREDICTIONS): tensor
            for key, tensor in self.outputs.items()
            if key.startswith(_PREDICTIONS)
        }
        return found or {
            key: tensor
            for key, tensor in self.outputs.items()
            if key != "loss" and not key.startswith(_METRICS)
        }


def read_signatures(meta_graph_def: Any, graph: Graph) -> dict[str, Signature]:
    """Reads the signatures of a MetaGraph, those of a session_bundle too.

    Args:
        meta_graph_def: The MetaGraph.
        graph: Its graph.

    Returns:
        The signatures by name; not the ones that TensorFlow reserves for itself.
    """
    return {
        name: _checked(
            name,
            signature.method_name,
            tensor_names(signature.inputs),
            tensor_names(signature.outputs),
            graph,
        )
        for name, signature in signature_defs(meta_graph_def).items()
    }


def signature_defs(meta_graph_def: Any) -> dict[str, Any]:
    """The `SignatureDef`s of a MetaGraph, those of a session_bundle too.

    Args:
        meta_graph_def: The MetaGraph.

    Returns:
        The protos by name; not the ones that TensorFlow reserves for itself.
    """
    found = {
        name: signature
        for name, signature in sorted(meta_graph_def.signature_def.items())
        if not name.startswith(_RESERVED_PREFIX)
    }
    for message in (
        meta_graph_def.collection_def[_SESSION_BUNDLE].any_list.value
        if (_SESSION_BUNDLE in meta_graph_def.collection_def)
        else ()
    ):
        try:
            bundle = session_bundle.read_signatures(message.value)
        except FormatError:
            continue
        for name, sides in bundle.items():
            found.setdefault(name, _signature_def(sides))
    return found


def train_ops(meta_graph_def: Any) -> list[str]:
    """The operations that a MetaGraph names as its training step.

    Args:
        meta_graph_def: The MetaGraph.

    Returns:
        Names of operations, of the collection or signature that SavedModels have for
        it, else of the collection `train_op`; none where it does not train.
    """
    signature = meta_graph_def.signature_def.get(_TRAIN_OP)
    names = [info.name for info in signature.outputs.values()] if signature else []
    for key in ("saved_model_train_op", "train_op"):
        if not names and key in meta_graph_def.collection_def:
            names = list(meta_graph_def.collection_def[key].node_list.value)
    return [TensorName.parse(name).node for name in names]


def _signature_def(sides: Mapping[str, Mapping[str, str]]) -> Any:
    """A `SignatureDef` of tensor names."""
    result = SignatureDef()
    for key, name in sides["inputs"].items():
        result.inputs[key].name = name
    for key, name in sides["outputs"].items():
        result.outputs[key].name = name
    return result


def choose_signature(
    signatures: Mapping[str, Signature], name: str | None
) -> Signature | None:
    """Chooses the one that a model is made of.

    Args:
        signatures: What the file has.
        name: The caller's choice.

    Returns:
        The caller's, else `serving_default`, else the one that is called or works like
        a prediction; `None` if no signature has outputs.

    Raises:
        SignatureError: If the caller's is not there, or names what is not in the graph.
    """
    if name is not None:
        if name not in signatures:
            raise SignatureError(
                f"The file has no signature {name!r}{nearest(name, signatures)}.",
                findings=[f"there is {known!r}" for known in signatures],
                fix="take one of the names above."
                if signatures
                else "leave out `signature` and name inputs and outputs.",
            )
        if signatures[name].missing:
            raise SignatureError(
                f"The signature {name!r} names tensors that the graph does not have:",
                findings=signatures[name].missing,
                fix="take another signature, or name inputs and outputs.",
            )
        return signatures[name]
    usable = [s for s in signatures.values() if s.outputs and not s.missing]
    return min(usable, key=_preference) if usable else None


def _preference(signature: Signature) -> tuple[bool, bool, int, bool, str]:
    name = signature.name.lower()
    place = _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)
    return (
        signature.name != _DEFAULT,
        not signature.inputs,
        place,
        not signature.method.endswith("predict"),
        signature.name,
    )


def tensor_names(infos: Mapping[str, Any]) -> dict[str, str]:
    """Tensor names by key; the parts of a sparse one as `key_indices` and so on.

    Args:
        infos: `TensorInfo`s by key, of one side of a signature.

    Returns:
        The names.
    """
    names = {}
    for key, info in sorted(infos.items()):
        if info.HasField("coo_sparse"):
            parts = info.coo_sparse
            names[f"{key}_indices"] = parts.indices_tensor_name
            names[f"{key}_values"] = parts.values_tensor_name
            names[f"{key}_shape"] = parts.dense_shape_tensor_name
        elif info.HasField("composite_tensor"):
            for place, part in enumerate(info.composite_tensor.components):
                names[f"{key}_{place}"] = part.name
        else:
            names[key] = info.name
    return names


def _checked(
    name: str,
    method: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    graph: Graph,
) -> Signature:
    sides = [
        {key: TensorName.parse(text) for key, text in side.items()}
        for side in (inputs, outputs)
    ]
    missing = tuple(
        f"signature {name!r}: {key!r} is {tensor}, which is not in the graph"
        for side in sides
        for key, tensor in side.items()
        if tensor.node not in graph.nodes
    )
    return Signature(name, method, sides[0], sides[1], missing)
