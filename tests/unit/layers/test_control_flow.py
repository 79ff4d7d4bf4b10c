"""Loops, conditions and arrays of TensorFlow 1: values and gradients."""

import numpy as np
import pytest
import tensorflow as tf

v1 = tf.compat.v1
X = np.array([[0.5, -1.0, 0.3], [1.5, 0.2, -0.7]], np.float32)


def placeholder(shape=(None, 3), dtype=tf.float32, name="x"):
    return v1.placeholder(dtype, shape, name)


def weight(*shape, name="w", use_resource=False):
    initial = tf.random_normal_initializer(stddev=0.3, seed=1)(shape)
    return v1.get_variable(name, initializer=initial, use_resource=use_resource)


def loop_in_loop():
    x, w = placeholder(), weight(3, 3)

    def outer(i, h):
        def inner(j, h):
            return j + 1, tf.tanh(tf.matmul(h, w) + tf.cast(i, tf.float32))

        _, h = v1.while_loop(lambda j, h: j < i + 1, inner, [0, h])
        h = v1.cond(tf.reduce_sum(h) > 0, lambda: h * 1.1, lambda: h - 0.1)
        return i + 1, h

    _, y = v1.while_loop(lambda i, h: i < 3, outer, [0, x])
    return {"x": x}, {"y": y}


def loop_in_condition():
    x, w = placeholder((2, 3)), weight(3, 3)
    p = placeholder((), tf.bool, "p")

    def loop():
        def body(i, h):
            even = tf.equal(i % 2, 0)
            other = v1.cond(p, lambda: 1.0, lambda: 2.0)
            return i + 1, v1.cond(
                even, lambda: tf.matmul(h, w), lambda: tf.tanh(h) + other
            )

        return v1.while_loop(lambda i, h: i < 4, body, [0, x])[1]

    return {"x": x, "p": p}, {"y": v1.cond(p, loop, lambda: x * 3.0)}


def conditions_in_conditions():
    x, w = placeholder(), weight(3)
    p = placeholder((), tf.bool, "p")
    q = v1.placeholder_with_default(True, [], "q")

    def true():
        return v1.cond(q, lambda: (x * w, tf.shape(x)[0]), lambda: (x + w, 3))

    def false():
        value, number = v1.cond(p, lambda: (x, 1), lambda: (x * x * w, 2))
        return value - 1.0, number

    y, n = v1.cond(p, true, false)
    return {"x": x, "p": p}, {"y": y, "n": n}


def cases():
    x, w = placeholder(), weight(3)
    p = placeholder((), tf.bool, "p")
    k = tf.cast(p, tf.int32) + 1
    y = v1.case(
        [
            (tf.equal(k, 0), lambda: x * w),
            (tf.equal(k, 1), lambda: tf.exp(x) * w),
            (tf.equal(k, 2), lambda: x - w),
        ],
        default=lambda: x + 1.0,
        exclusive=True,
    )
    return {"x": x, "p": p}, {"y": y}


def conditions_of_one_predicate():
    x, w = placeholder(), weight(3)
    p = placeholder((), tf.bool, "p")
    h = x
    for _ in range(3):
        a, b = v1.cond(p, lambda h=h: (h * w, h + w), lambda h=h: (h - w, h * h))
        h = a + tf.tanh(b)
    return {"x": x, "p": p}, {"y": h}


def map_and_scan():
    x, w = placeholder(), weight(3)
    return {"x": x}, {
        "map": v1.map_fn(lambda e: tf.sin(e * w), x),
        "scan": v1.scan(lambda s, e: s * 0.5 + e * w, x),
        "fold": v1.foldl(lambda s, e: s + e * w, x),
    }


def arrays():
    x = placeholder((2, 3))
    w = weight(3)
    array = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False)

    def body(i, array):
        return i + 1, array.write(i, tf.tile(x[:1] * w, [i + 1, 1]))

    _, array = v1.while_loop(lambda i, _: i < 4, body, [0, array])
    parts = tf.TensorArray(tf.float32, 3, infer_shape=False)
    parts = parts.split(tf.tile(x[:1] * w, [6, 1]), [1, 2, 3])
    rows = tf.TensorArray(tf.float32, 2, clear_after_read=False).unstack(x * w)
    return {"x": x}, {
        "joined": array.concat(),
        "size": array.size(),
        "parts": parts.concat(),
        "rows": rows.gather([1, 0]),
        "row": rows.read(1),
        "all": rows.stack(),
    }


def growing_loop_variable():
    x, w = placeholder(), weight(3)
    shapes = [tf.TensorShape([]), tf.TensorShape([None, 3])]
    _, y = v1.while_loop(
        lambda i, h: i < 3,
        lambda i, h: (i + 1, tf.concat([h, h[-1:] * w], 0)),
        [0, x],
        shape_invariants=shapes,
    )
    return {"x": x}, {"y": y}


def variables_used_in_loops():
    x = placeholder()
    w = weight(3, 3, use_resource=True)
    table = weight(5, 3, name="table", use_resource=True)

    def body(i, h):
        rows = tf.nn.embedding_lookup(table, tf.stack([i, i + 1]))
        return i + 1, tf.tanh(tf.matmul(h, w)) + tf.reduce_sum(rows, 0)

    _, y = v1.while_loop(lambda i, h: i < 3, body, [0, x])
    z = v1.cond(
        tf.reduce_sum(x) > 0,
        lambda: tf.matmul(x, w),
        lambda: tf.gather(table, [0]) + x,
    )
    return {"x": x}, {"y": y, "z": z}


def rows_of_a_resource():
    x = placeholder()
    table = weight(5, 3, name="table", use_resource=True)
    return {"x": x}, {"y": x * tf.nn.embedding_lookup(table, [1, 3])}


WITHOUT_FLAG = [
    rows_of_a_resource,
    loop_in_loop,
    map_and_scan,
    arrays,
    growing_loop_variable,
    variables_used_in_loops,
]
WITH_FLAG = [
    loop_in_condition,
    conditions_in_conditions,
    cases,
    conditions_of_one_predicate,
]


@pytest.mark.parametrize("build", WITHOUT_FLAG)
def test_loops(check, build):
    comparison = check(build)
    comparison.outputs({"x": X})
    comparison.gradients({"x": X})


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("build", WITH_FLAG)
def test_conditions(check, build, flag):
    comparison = check(build)
    comparison.outputs({"x": X, "p": flag})
    comparison.gradients({"x": X, "p": flag})


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("build", WITH_FLAG)
def test_conditions_on_a_known_predicate(check, build, flag):
    comparison = check(build)
    case = comparison.case
    expected = case.expected({"x": X, "p": flag})
    island = case.island(constants={case.inputs.pop("p"): flag})
    found = island({"x": X})
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, 1e-5)


def test_loop_without_recorded_shapes(graph_case, check):
    comparison = check(growing_loop_variable)
    case = comparison.case
    for node in case.graph.nodes.values():
        node.attrs.pop("_recorded_shapes", None)
    comparison.outputs({"x": X})


def test_update_in_a_condition(graph_case):
    def build():
        x, p = placeholder(), placeholder((), tf.bool, "p")
        count = v1.get_variable(
            "count", initializer=0.0, trainable=False, use_resource=False
        )
        new = v1.cond(p, lambda: v1.assign_add(count, 2.0), lambda: count.read_value())
        with tf.control_dependencies([new]):
            return {"x": x, "p": p}, {"y": x + tf.identity(count)}

    case = graph_case(build)
    island = case.island()
    for flag in (True, False, True):
        feeds = {"x": X, "p": np.asarray(flag)}
        np.testing.assert_allclose(island(feeds)["y"], case.expected(feeds)["y"])
    assert island.variable("count").numpy() == case.variables_after()["count"] == 4.0


def test_plain_op_that_waits_for_a_condition(graph_case):
    def build():
        x, p = placeholder(), placeholder((), tf.bool, "p")
        count = v1.get_variable(
            "count", initializer=0.0, trainable=False, use_resource=False
        )
        new = v1.cond(p, lambda: v1.assign_add(count, 2.0), lambda: count.read_value())
        with tf.control_dependencies([new]):
            return {"x": x, "p": p}, {"y": x + 1.0}

    island = graph_case(build).island()
    np.testing.assert_allclose(island({"x": X, "p": np.asarray(True)})["y"], X + 1)
    assert island.variable("count").numpy() == 2.0


def test_update_in_a_loop(graph_case):
    def build():
        x = placeholder()
        count = v1.get_variable(
            "count", initializer=0.0, trainable=False, use_resource=False
        )

        def body(i, h):
            with tf.control_dependencies([v1.assign_add(count, 1.0)]):
                return i + 1, h * 2.0 + count.read_value()

        _, y = v1.while_loop(lambda i, h: i < 3, body, [0, x], parallel_iterations=1)
        return {"x": x}, {"y": y}

    case = graph_case(build)
    island = case.island()
    np.testing.assert_allclose(island({"x": X})["y"], case.expected({"x": X})["y"])
    assert island.variable("count").numpy() == 3.0


def test_reads_of_a_variable_that_a_loop_updates(graph_case):
    def build():
        x = placeholder()
        count = v1.get_variable(
            "count", initializer=0.0, trainable=False, use_resource=True
        )

        def body(i, h):
            new = count.read_value() + 1.0
            with tf.control_dependencies([count.assign(new, read_value=False)]):
                return i + 1, h * 2.0 + new

        _, y = v1.while_loop(lambda i, h: i < 3, body, [0, x], parallel_iterations=1)
        return {"x": x}, {"y": y}

    case = graph_case(build)
    island = case.island()
    np.testing.assert_allclose(island({"x": X})["y"], case.expected({"x": X})["y"])
    assert island.variable("count").numpy() == 3.0


def test_operation_in_a_branch_runs_if_the_branch_is_taken(graph_case):
    def build():
        x, p = placeholder(), placeholder((), tf.bool, "p")
        count = v1.get_variable(
            "count", initializer=0.0, trainable=False, use_resource=False
        )

        def true():
            v1.assign_add(count, 1.0, name="update")
            return x * 2.0

        return {"x": x, "p": p}, {"y": v1.cond(p, true, lambda: x)}

    island = graph_case(build).island(updates=["cond/update"])
    island({"x": X, "p": np.asarray(True)}, training=True)
    island({"x": X, "p": np.asarray(False)}, training=True)
    island({"x": X, "p": np.asarray(True)}, training=False)
    assert island.variable("count").numpy() == 1.0


def test_functional_control_flow(graph_case, check):
    def build():
        v1.enable_control_flow_v2()
        x, p = placeholder(), placeholder((), tf.bool, "p")
        w = weight(3, 3, use_resource=True)
        array = tf.TensorArray(tf.float32, 3)

        def body(i, h, array):
            h = tf.tanh(tf.matmul(h, w))
            h = tf.cond(tf.equal(i, 1), lambda: h * 2.0, lambda: h + 1.0)
            return i + 1, h, array.write(i, h)

        _, y, array = tf.while_loop(lambda i, *_: i < 3, body, [0, x, array])
        z = tf.cond(p, lambda: tf.matmul(x, w), lambda: x)
        branches = [lambda: x, lambda: x * 2.0, lambda: tf.matmul(x, w)]
        k = tf.switch_case(tf.cast(p, tf.int32) + 1, branches)
        v1.disable_control_flow_v2()
        return {"x": x, "p": p}, {"y": y, "z": z, "k": k, "all": array.stack()}

    comparison = check(build)
    for flag in (False, True):
        comparison.outputs({"x": X, "p": flag})
        comparison.gradients({"x": X, "p": flag})


def test_calls_of_functions(check):
    def build():
        x, w = placeholder(), weight(3, 3, use_resource=True)

        @tf.function(autograph=False)
        def dense(x):
            return tf.nn.relu(tf.matmul(x, w)), tf.reduce_sum(x)

        y, total = dense(x)
        return {"x": x}, {"y": y, "total": total}

    comparison = check(build)
    comparison.outputs({"x": X})
    comparison.gradients({"x": X})
