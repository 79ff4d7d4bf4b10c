"""Of a distributed model only the first replica is exported."""

import json
import subprocess
import sys

import numpy as np
import tensorflow as tf

from keras_metagraph.export.nodes import make_node
from keras_metagraph.export.replicas import clear_placements, drop_copies
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph


def test_changes_of_copies_go_and_reads_stay():
    graph = Graph()
    for name in ("first", "copy"):
        graph.add(make_node(name, "Placeholder", dtype=tf.resource))
    graph.add(make_node("read", "ReadVariableOp", ["copy"], dtype=tf.float32))
    for name in ("first", "copy"):
        node = make_node(f"{name}/add", "AssignAddVariableOp", [name, "read"])
        graph.add(node)
    graph.add(make_node("end", "NoOp", control=["first/add", "copy/add"]))
    drop_copies(graph, ["copy"])
    assert "copy/add" not in graph.nodes
    assert "read" in graph.nodes
    assert graph.nodes["end"].control_inputs == ["first/add"]


def test_copies_are_followed_into_branches():
    first, copy = tf.Variable(1.0), tf.Variable(1.0)

    @tf.function
    def step(x):
        def change():
            first.assign_add(x)
            copy.assign_add(x)
            return x

        return tf.cond(x > 0.0, change, lambda: x)

    concrete = step.get_concrete_function(tf.TensorSpec([]))
    graph = graph_from_proto(concrete.graph.as_graph_def())
    names = {
        id(handle): tensor.op.name
        for handle, tensor in zip(
            concrete.captured_inputs,
            concrete.inputs[-len(concrete.captured_inputs) :],
            strict=True,
        )
    }
    drop_copies(graph, [names[id(copy.handle)]])
    changes = [
        (function.name, node.name)
        for function in graph.functions.values()
        for node in function.graph.nodes.values()
        if node.op == "AssignAddVariableOp"
    ]
    assert len(changes) == 1
    function = graph.functions[changes[0][0]]
    assert set(function.control_results) <= set(function.graph.nodes)


def test_devices_of_a_strategy_go_and_those_of_the_user_stay():
    graph = Graph()
    graph.add(make_node("a", "NoOp")).device = "/job:localhost/replica:0/device:CPU:1"
    graph.add(make_node("b", "NoOp")).device = "/device:GPU:0"
    clear_placements(graph)
    assert [node.device for node in graph.nodes.values()] == ["", "/device:GPU:0"]


SCRIPT = """
import json, sys
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
from keras import layers
from keras_metagraph.export.names import named_variables
from keras_metagraph.saving import save_meta_graph, variable_values


def make():
    model = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            layers.Dense(4, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(2),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


x = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
y = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = make()
model.fit(x, y, batch_size=8, verbose=0)
prefix = save_meta_graph(model, sys.argv[1])
values = {name: value.numpy() for name, value in variable_values(model).items()}
keras.utils.clear_session()
alone = make()
alone.fit(x, y, verbose=0)
for variable in named_variables(alone):
    if variable.name in values:
        variable.variable.assign(values[variable.name])
expected, found = [], []
with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
    tf.compat.v1.train.import_meta_graph(prefix + ".meta").restore(session, prefix)
    devices = {operation.device for operation in graph.get_operations()}
    (train_op,) = graph.get_collection("train_op")
    fetches = ["train/loss:0", "train/metrics/mae:0", train_op]
    for _ in range(4):
        values = session.run(fetches, {"x:0": x, "labels:0": y})
        found.append([float(value) for value in values[:2]])
running = []
for _ in range(4):
    logs = alone.train_on_batch(x, y, return_dict=True)
    running.append(logs["mae"])
    expected.append([float(logs["loss"]), float(np.mean(running))])
print(json.dumps([sorted(devices), expected, found]))
"""


def test_a_mirrored_model_is_exported_as_one_replica(tmp_path):
    # Logical devices are chosen before TensorFlow starts: a process of its own.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "m")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    devices, expected, found = json.loads(done.stdout.splitlines()[-1])
    assert devices == [""]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
