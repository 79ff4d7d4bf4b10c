"""Fused cells: their gradients, against cells of plain ops."""

import numpy as np
import tensorflow as tf

from keras_metagraph.layers.graph_ops.registry import REGISTRY

v1 = tf.compat.v1
BATCH, SIZE, UNITS = 2, 3, 4


def weights(*shapes):
    random = np.random.RandomState(0)
    return [
        v1.get_variable(
            f"w{place}",
            initializer=(random.randn(*shape) * 0.3).astype(np.float32),
            use_resource=False,
        )
        for place, shape in enumerate(shapes)
    ]


def sequence():
    return v1.placeholder(tf.float32, [None, 5, SIZE], "x")


def lstm(fused):
    def build():
        x = sequence()
        w, b, *peepholes = weights(
            (SIZE + UNITS, 4 * UNITS), (4 * UNITS,), *[(UNITS,)] * 3
        )
        c = h = tf.zeros([BATCH, UNITS])
        for step in tf.unstack(x, axis=1):
            if fused:
                cell = tf.raw_ops.LSTMBlockCell(
                    x=step,
                    cs_prev=c,
                    h_prev=h,
                    w=w,
                    wci=peepholes[0],
                    wcf=peepholes[1],
                    wco=peepholes[2],
                    b=b,
                    cell_clip=0.0,
                    use_peephole=True,
                )
                c, h = cell.cs, cell.h
            else:
                gates = tf.matmul(tf.concat([step, h], 1), w) + b
                i, j, f, o = tf.split(gates, 4, 1)
                kept = c * tf.sigmoid(f + 1.0 + c * peepholes[1])
                c = kept + tf.sigmoid(i + c * peepholes[0]) * tf.tanh(j)
                h = tf.tanh(c) * tf.sigmoid(o + c * peepholes[2])
        return {"x": x}, {"c": c, "h": h}

    return build


def gru(fused):
    def build():
        x = sequence()
        rows = SIZE + UNITS
        w_ru, w_c, b_ru, b_c = weights(
            (rows, 2 * UNITS), (rows, UNITS), (2 * UNITS,), (UNITS,)
        )
        h = tf.zeros([BATCH, UNITS])
        for step in tf.unstack(x, axis=1):
            if fused:
                h = tf.raw_ops.GRUBlockCell(
                    x=step, h_prev=h, w_ru=w_ru, w_c=w_c, b_ru=b_ru, b_c=b_c
                ).h
            else:
                gates = tf.matmul(tf.concat([step, h], 1), w_ru) + b_ru
                r, u = tf.split(tf.sigmoid(gates), 2, 1)
                c = tf.tanh(tf.matmul(tf.concat([step, h * r], 1), w_c) + b_c)
                h = u * h + (1 - u) * c
        return {"x": x}, {"h": h}

    return build


def compare(graph_case, monkeypatch, cell):
    plain = graph_case(cell(False))
    with monkeypatch.context() as patch:
        patch.setattr(graph_case, "_build_gradients", lambda self, outputs: {})
        island = graph_case(cell(True)).island()
    feeds = {"x": np.random.RandomState(1).randn(BATCH, 5, SIZE).astype(np.float32)}
    with tf.GradientTape() as tape:
        outputs = island(feeds)
        loss = tf.add_n([tf.reduce_sum(value**2) for value in outputs.values()])
    for key, value in plain.expected(feeds).items():
        np.testing.assert_allclose(outputs[key], value, 1e-5, 1e-6)
    expected = plain.gradients(feeds)
    variables = {name: island.variable(name).value for name in expected}
    for name, value in tape.gradient(loss, variables).items():
        np.testing.assert_allclose(value, expected[name], 1e-4, 1e-6, err_msg=name)


def test_lstm(graph_case, monkeypatch):
    compare(graph_case, monkeypatch, lstm)


def test_gru(graph_case, monkeypatch):
    compare(graph_case, monkeypatch, gru)


def test_they_are_registered():
    assert {"GRUBlockCell", "LSTMBlockCell"} <= REGISTRY.ops()
