"""Published exports, loaded without a word about them, against real sessions.

`KERAS_METAGRAPH_CORPUS` names the directory; its `INDEX.jsonl` says what each one is.
Random inputs go through the model that a plain load gives, and through a session of
this TensorFlow, or of 1.15 where this one refuses the file.
"""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import inspect_meta_graph, load_from_meta_graph
from keras_metagraph.audit.tensors import decode_tensor
from keras_metagraph.errors import CheckpointError
from keras_metagraph.formats.registry import open_export
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.specs import tensor_spec

v1 = tf.compat.v1
CORPUS = os.environ.get("KERAS_METAGRAPH_CORPUS")
BATCH = 2
# It holds ParseExampleV2, which 1.15 does not know, and BoostedTreesBucketize, which
# has no kernel in 2.x: no release at hand runs it.
WITHOUT_ORACLE = {"tfx-taxi-trained"}
# Placeholders of unknown rank that take a number.
SCALARS = {("serving-counter", "delta:0")}


def entries(graph_only):
    if not CORPUS:
        return []
    lines = (Path(CORPUS) / "INDEX.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [
        pytest.param(entry, id=entry["id"])
        for entry in found
        if entry["kind"] != "h5" and entry["id"].startswith("GO-") == graph_only
    ]


def path_of(corpus, entry):
    folder = corpus / entry["id"]
    single = sorted(folder.glob("*.meta"))
    return single[0] if entry["id"].startswith("GO-") else folder


@pytest.mark.parametrize("entry", entries(graph_only=False))
def test_predictions_of_a_plain_load(corpus, tf115, entry):
    path = path_of(corpus, entry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = load_from_meta_graph(path)
        export = open_export(path)
    meta = model.meta_graph
    inputs = random_inputs(meta, entry)
    outputs = model(inputs)
    if not isinstance(outputs, dict):
        outputs = {next(iter(meta.interface.outputs)): outputs}
    if entry["id"] in WITHOUT_ORACLE:
        np.testing.assert_allclose(np.sum(outputs["scores"], -1), 1.0, 1e-5)
        return
    feeds = {meta.interface.inputs[key]: value for key, value in inputs.items()}
    feeds |= {k: np.asarray(v[1]) for k, v in meta.interface.training_values.items()}
    feeds = {k: v for k, v in feeds.items() if not k.startswith("unused_input")}
    expected = session_values(export, meta.interface.outputs, feeds, tf115)
    for key, value in outputs.items():
        found = np.asarray(value)
        if found.dtype.kind == "O":
            assert found.tolist() == expected[key].astype(object).tolist(), key
        else:
            np.testing.assert_allclose(found, expected[key], 1e-5, 1e-5, err_msg=key)


@pytest.mark.parametrize("entry", entries(graph_only=True))
def test_graph_without_weights_is_inspected_but_not_made_up(corpus, entry):
    path = path_of(corpus, entry)
    report = inspect_meta_graph(path)
    assert str(report)
    if not entry["n_variables"]:
        load_from_meta_graph(path)
        return
    with pytest.raises(CheckpointError):
        load_from_meta_graph(path)


def random_inputs(meta, entry):
    """Something for each input: numbers, small integers, words, tf.Examples."""
    random = np.random.RandomState(0)
    known = (entry.get("forward_check_tf221") or {}).get("feeds", {})
    values = {}
    for key, tensor in meta.interface.inputs.items():
        spec = tensor_spec(meta.graph, tensor)
        shape = known[tensor][1] if tensor in known else batch_shape(spec.shape)
        if (entry["id"], tensor) in SCALARS:
            shape = []
        if spec.dtype == tf.string:
            text = example(meta.graph, tensor)
            text = b"a b" if text is None else text
            values[key] = np.full(shape, text, dtype=object)
        elif spec.dtype.is_integer:
            values[key] = np.full(shape, 3, spec.dtype.as_numpy_dtype)
        else:
            values[key] = np.asarray(random.rand(*shape), spec.dtype.as_numpy_dtype)
    return values


def batch_shape(shape):
    if shape.rank is None:
        return [BATCH]
    sizes = shape.as_list()
    return [BATCH if size is None else size for size in sizes]


def example(graph, tensor):
    """A serialized tf.Example with what the graph parses out of `tensor`."""
    name = TensorName.parse(tensor).node
    for node in graph.nodes.values():
        if node.op == "ParseExample" and node.inputs[0].node == name:
            sparse, dense = node.attrs["Nsparse"].i, node.attrs["Ndense"].i
            keys = node.inputs[2 + sparse : 2 + sparse + dense]
            types = node.attrs["Tdense"].list.type
            shapes = node.attrs["dense_shapes"].list.shape
            result = tf.train.Example()
            for key, number, shape in zip(keys, types, shapes, strict=True):
                text = decode_tensor(graph.nodes[key.node].attrs["value"].tensor)
                fill(result, text.item(), number, shape)
            return result.SerializeToString()
        if node.op == "ParseExampleV2" and node.inputs[0].node == name:
            return tf.train.Example().SerializeToString()
    return None


def fill(result, key, number, shape):
    count = int(np.prod([dim.size for dim in shape.dim])) if shape.dim else 1
    feature = result.features.feature[key.decode()]
    if number == tf.float32.as_datatype_enum:
        feature.float_list.value.extend([1.5] * count)
    elif number == tf.int64.as_datatype_enum:
        feature.int64_list.value.extend([3] * count)
    else:
        feature.bytes_list.value.extend([b"word"] * count)


def session_values(export, fetches, feeds, tf115):
    """What a session of this TensorFlow gives; one of 1.15 where this one refuses."""
    try:
        return values_here(export, fetches, feeds)
    except Exception as error:  # whatever the import, the restore or the run says
        first = f"{type(error).__name__}: {str(error)[:200]}"
    arrays = {
        f"feed/{name}": np.asarray(value.tolist()) if value.dtype == object else value
        for name, value in feeds.items()
    }
    script, args = "session", {"meta": export.path, "checkpoint": export.checkpoint}
    if export.kind == "saved_model":
        meta = export.meta_graphs[0]
        script = "saved_model"
        args = {
            "saved_model": Path(export.path).parent,
            "tags": list(meta.meta_info_def.tags),
        }
    print(f"oracle: TensorFlow 1.15, since this one says {first}")
    done = tf115(script, arrays, args | {"fetches": dict(fetches)})
    return {key: done[f"fetch/{key}"] for key in fetches}


def values_here(export, fetches, feeds):
    options = v1.ConfigProto(allow_soft_placement=True)
    with tf.Graph().as_default(), v1.Session(config=options) as session:
        if export.kind == "saved_model":
            tags = export.meta_graphs[0].meta_info_def.tags
            v1.saved_model.loader.load(
                session, list(tags), str(Path(export.path).parent)
            )
        else:
            meta = export.select()
            # The version is the one thing that 2.x and 1.15 both stumble over.
            meta.meta_info_def.tensorflow_version = ""
            saver = v1.train.import_meta_graph(meta, clear_devices=True)
            session.run(v1.local_variables_initializer())
            if export.checkpoint and saver is not None:
                saver.restore(session, export.checkpoint)
            session.run(v1.tables_initializer())
        return session.run(dict(fetches), feeds)
