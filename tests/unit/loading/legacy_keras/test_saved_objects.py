"""The object graph of a SavedModel and that of its checkpoint, walked together."""

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph.checkpoint.reader import TensorReader
from keras_metagraph.errors import CheckpointError, FormatError
from keras_metagraph.loading.legacy_keras.saved_graph import without_traces
from keras_metagraph.loading.legacy_keras.saved_objects import SavedObjects


class Inner(tf.Module):
    def __init__(self, value):
        super().__init__()
        self.value = tf.Variable(value, name="same")


class Outer(tf.Module):
    def __init__(self):
        super().__init__()
        self.items = [Inner(1.0), Inner(2.0)]
        self.again = self.items[1]

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def serve(self, x):
        return self.twice(x) + self.items[0].value

    @tf.function
    def twice(self, x):
        return 2.0 * x


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The MetaGraphDef and the reader of a module with two variables of one name."""
    directory = tmp_path_factory.mktemp("saved")
    module = Outer()
    tf.saved_model.save(module, str(directory), signatures=module.serve)
    data = (directory / "saved_model.pb").read_bytes()
    meta_graph_def = SavedModel.FromString(data).meta_graphs[0]
    return meta_graph_def, TensorReader(directory / "variables" / "variables")


def test_variables_of_one_name_are_told_apart(saved):
    objects = SavedObjects(saved[0], {}, saved[1])

    items = objects.elements(objects.attributes(0)["items"])
    values = [objects.value(objects.attributes(item)["value"]) for item in items]

    assert values == [1.0, 2.0]
    assert objects.attributes(0)["again"] == items[1]


def test_edges_that_lead_nowhere_are_told(saved):
    damaged = type(saved[0])()
    damaged.CopyFrom(saved[0])
    damaged.object_graph_def.nodes[0].children.add(node_id=10**6, local_name="x")

    with pytest.raises(FormatError, match="does not have"):
        SavedObjects(damaged, {}, saved[1])


def test_checkpoint_of_names_only_is_told(saved, tmp_path):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        tf.compat.v1.get_variable("v", initializer=1.0)
        session.run(tf.compat.v1.global_variables_initializer())
        prefix = tf.compat.v1.train.Saver().save(session, str(tmp_path / "m"))

    with pytest.raises(CheckpointError, match="whose"):
        SavedObjects(saved[0], {}, TensorReader(prefix))


def test_functions_that_nothing_calls_are_left_out(saved):
    meta_graph_def = type(saved[0])()
    meta_graph_def.CopyFrom(saved[0])
    library = meta_graph_def.graph_def.library
    library.function.add().signature.name = "trace_of_a_layer"

    kept = without_traces(meta_graph_def)

    names = {function.signature.name for function in library.function}
    left = {function.signature.name for function in kept.graph_def.library.function}
    assert "trace_of_a_layer" not in left
    called = {
        node.attr["f"].func.name
        for node in meta_graph_def.graph_def.node
        if node.op.endswith("PartitionedCall")
    }
    assert called <= left < names
