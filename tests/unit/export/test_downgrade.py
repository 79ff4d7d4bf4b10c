"""Graphs are said in the ops of 1.15 and compute the same as before."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.export.downgrade import (
    PRODUCER,
    Unsupported,
    downgrade,
    explain,
    keep_functional,
    strip_notes,
)
from keras_metagraph.export.inline import inline_calls
from keras_metagraph.export.nodes import attr, const_node, make_node
from keras_metagraph.export.op_table import known_ops
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.to_proto import graph_to_proto

ROW = tf.constant([1, 0, 1, 3, 7])
SEED = tf.constant([5, 9])
IMAGE = tf.reshape(tf.range(2.0 * 4 * 4 * 6), (2, 4, 4, 6)) / 100.0


def traced(function, *inputs):
    """The graph of a function, its placeholders and its outputs."""
    specs = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in inputs]
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    graph = graph_from_proto(concrete.graph.as_graph_def(add_shapes=True))
    inline_calls(graph)
    feeds = [tensor.name for tensor in concrete.inputs]
    return graph, feeds, [tensor.name for tensor in concrete.outputs]


def run(graph, feeds, fetches):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph_to_proto(graph), name="")
        return session.run(fetches, feeds)


def assert_same(function, *inputs, tolerance=0.0):
    """Runs a function's graph before and after; returns the ops after."""
    graph, names, fetches = traced(function, *inputs)
    feeds = dict(zip(names, (x.numpy() for x in inputs), strict=True))
    before = run(graph, feeds, fetches)
    assert downgrade(graph) == []
    strip_notes(graph)
    bodies = [graph, *(f.graph for f in graph.functions.values())]
    ops = {n.op for body in bodies for n in body.nodes.values()} - {"_Arg"}
    assert ops <= set(known_ops())
    for old, new in zip(before, run(graph, feeds, fetches), strict=True):
        if tolerance:
            np.testing.assert_allclose(old, new, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(old, new)
    return ops


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: tf.random.stateless_uniform((3, 4), seed),
        lambda seed: tf.random.stateless_normal((3, 4), seed, dtype=tf.float64),
        lambda seed: tf.random.stateless_truncated_normal((3, 4), seed),
        lambda seed: tf.random.stateless_uniform(
            (3, 4), seed, minval=-5, maxval=20, dtype=tf.int64
        ),
        lambda seed: tf.nn.experimental.stateless_dropout(tf.ones((3, 4)), 0.5, seed),
    ],
)
def test_random_numbers_have_the_same_bits(draw):
    ops = assert_same(lambda seed: draw(tf.reshape(seed, (2,))), SEED)
    assert not any("V2" in op for op in ops if op.startswith("Stateless"))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    "count",
    [
        lambda x, b: tf.math.bincount(x, maxlength=6, minlength=6, binary_output=b),
        lambda x, b: tf.math.bincount(
            tf.stack([x, 2 * x]), minlength=4, maxlength=4, axis=-1, binary_output=b
        ),
        lambda x, b: tf.math.bincount(
            tf.RaggedTensor.from_row_splits(x, [0, 3, 3, 5]),
            minlength=5,
            maxlength=5,
            axis=-1,
            binary_output=b,
        ),
    ],
)
def test_counts(count, binary):
    assert_same(lambda x: count(x, binary), ROW)


def test_weighted_counts():
    weights = tf.constant([0.5, 1.0, 2.0, 4.0, 8.0])
    assert_same(
        lambda x, w: tf.math.bincount(x, weights=w, minlength=4, maxlength=4),
        ROW,
        weights,
    )


@pytest.mark.parametrize(
    "function",
    [
        tf.linalg.diag,
        lambda x: tf.linalg.diag(x, k=1),
        lambda x: tf.linalg.diag_part(tf.linalg.diag(x)),
        lambda x: tf.linalg.diag_part(tf.linalg.diag(x), k=-1),
        lambda x: tf.linalg.set_diag(tf.ones((2, 3, 3)), x),
    ],
)
def test_diagonals(function):
    assert_same(function, tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))


@pytest.mark.parametrize("start", [[0, 1], [1, 9], [-3, 0]])
def test_updates_at_computed_places(start):
    def put(x):
        return keras.ops.slice_update(x, start, 10.0 + x[:2, :2])

    assert_same(put, tf.reshape(tf.range(12.0), (4, 3)))


def test_a_slice_at_a_computed_place_is_moved_inside():
    graph = Graph()
    for name, dtype in (("x", tf.float32), ("start", tf.int32)):
        graph.add(
            make_node(name, "Placeholder", dtype=dtype, shape=tf.TensorShape(None))
        )
    graph.add(const_node("size", [2, 2], tf.int32))
    types = {"T": tf.float32, "Tindices": tf.int32}
    graph.add(make_node("y", "XlaDynamicSlice", ["x", "start", "size"], **types))
    assert downgrade(graph) == []
    x = np.arange(12.0).reshape(4, 3)
    for start, rows, columns in (([1, 0], 1, 0), ([9, -4], 2, 0), ([0, 2], 0, 1)):
        found = run(graph, {"x:0": x, "start:0": start}, "y:0")
        np.testing.assert_array_equal(found, x[rows : rows + 2, columns : columns + 2])


@pytest.mark.parametrize(("groups", "filters"), [(2, 4), (6, 6), (6, 12)])
@pytest.mark.parametrize("strides", [1, 2])
def test_grouped_convolutions_and_their_gradients(groups, filters, strides):
    kernel = tf.random.stateless_normal((3, 3, 6 // groups, filters), [1, 2])

    def body(image, kernel):
        kernel = tf.ensure_shape(kernel, (3, 3, 6 // groups, filters))
        with tf.GradientTape() as tape:
            tape.watch([image, kernel])
            y = tf.nn.conv2d(image, kernel, strides, "SAME")
            loss = tf.reduce_sum(y * y)
        return [y, *tape.gradient(loss, [image, kernel])]

    graph, names, fetches = traced(body, IMAGE, kernel)
    assert downgrade(graph) == []
    # This TensorFlow has the gradients on a CPU only under XLA.
    expected = tf.function(body, jit_compile=True)(IMAGE, kernel)
    feeds = dict(zip(names, (IMAGE.numpy(), kernel.numpy()), strict=True))
    strip_notes(graph)
    for old, new in zip(expected, run(graph, feeds, fetches), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-4, atol=1e-4)


TRANSFORMS = {
    "turned": [0.8, -0.6, 0.7, 0.6, 0.8, -1.3, 0.0, 0.0],
    "far away": [3.0, 0.2, -9.0, 0.1, 4.0, 7.5, 0.0, 0.0],
    "in perspective": [1.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.01, -0.02],
    "without scale": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0],
}


@pytest.mark.parametrize("interpolation", ["BILINEAR", "NEAREST"])
@pytest.mark.parametrize("fill_mode", ["CONSTANT", "REFLECT", "WRAP", "NEAREST"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_projective_transforms(name, fill_mode, interpolation):
    rows = tf.constant([TRANSFORMS[name], TRANSFORMS["turned"]])
    for transforms in (rows, rows[:1]):
        assert_same(
            lambda images, t: tf.raw_ops.ImageProjectiveTransformV3(
                images=images,
                transforms=t,
                output_shape=[5, 3],
                fill_value=0.5,
                interpolation=interpolation,
                fill_mode=fill_mode,
            ),
            IMAGE,
            transforms,
            tolerance=1e-4,
        )


def test_other_scales_names_and_types():
    x = tf.constant([-1.5, 0.0, 2.5])
    assert_same(tf.math.bessel_i0, x, tolerance=1e-6)
    assert_same(lambda v: tf.switch_case(tf.size(v) - 2, [lambda: v, lambda: 2 * v]), x)
    assert_same(lambda v: tf.math.top_k(v, 2)[0], x)
    assert_same(
        lambda v: tf.raw_ops.BatchMatMulV3(
            x=v, y=tf.transpose(v), Tout=tf.float32, adj_x=False
        ),
        tf.ones((2, 2)),
    )


def test_attributes_with_default_values_and_harmless_ones_go():
    graph = Graph()
    node = make_node("m", "MatMul", T=tf.float32, grad_a=True, transpose_a=True)
    node.attrs["_XlaMustCompile"] = attr(True)
    node.attrs["_lower_using_switch_merge"] = attr(True)
    graph.add(node)
    assert downgrade(graph) == []
    strip_notes(graph)
    assert set(node.attrs) == {"T", "transpose_a", "_lower_using_switch_merge"}
    keep_functional(graph)
    assert set(node.attrs) == {"T", "transpose_a"}
    assert graph.producer == PRODUCER


def test_what_1_15_lacks_is_listed_by_layer():
    graph = Graph()
    for name in ("layer/a", "layer/b"):
        graph.add(make_node(name, "Erfinv", T=tf.float32))
    graph.add(make_node("c", "TensorListSetItem", resize_if_index_out_of_bounds=True))
    found = downgrade(graph)
    assert [(u.node, u.op) for u in found] == [
        ("layer/a", "Erfinv"),
        ("layer/b", "Erfinv"),
        ("c", "TensorListSetItem"),
    ]
    layers = {"layer/a": "layer", "layer/b": "layer", "c": ""}
    assert explain(found, layers) == [
        "Erfinv in layer: TensorFlow 1.15 has no such op (2 nodes)",
        "TensorListSetItem in the model: TensorFlow 1.15 has no "
        "resize_if_index_out_of_bounds=b: true",
    ]


def test_several_diagonals_that_1_15_would_align_otherwise_are_refused():
    graph, _, _ = traced(
        lambda x: tf.linalg.diag(tf.stack([x, x]), k=(0, 1)), tf.constant([1.0, 2.0])
    )
    (found,) = downgrade(graph)
    assert isinstance(found, Unsupported)
    assert "aligns several diagonals" in found.reason


def test_random_numbers_from_a_key_alone_are_refused():
    graph, _, _ = traced(
        lambda key: tf.raw_ops.StatelessRandomUniformV2(
            shape=[2],
            key=tf.cast(key[:1], tf.uint64),
            counter=tf.zeros([2], tf.uint64),
            alg=1,
        ),
        SEED,
    )
    (found,) = downgrade(graph)
    assert "do not come from a seed" in found.reason
