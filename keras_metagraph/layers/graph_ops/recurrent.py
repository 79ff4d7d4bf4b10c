"""Fused recurrent cells, whose gradients TensorFlow 1 had in contrib.

The ops for the gradients are still there; `contrib/rnn/python/ops/lstm_ops.py` and
`gru_ops.py` of TF 1.15 say how they go together.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.graph import op_defs
from keras_metagraph.graph.ir import Node
from keras_metagraph.layers.graph_ops.builder import Scope
from keras_metagraph.layers.graph_ops.registry import REGISTRY


@REGISTRY.register("LSTMBlockCell")
def build_lstm_cell(scope: Scope, node: Node) -> Sequence[Any]:
    """One step of an LSTM: gates, state, output."""
    peephole = _attr(node, "use_peephole").b
    options = {
        "forget_bias": _attr(node, "forget_bias").f,
        "cell_clip": _attr(node, "cell_clip").f,
        "use_peephole": peephole,
    }
    names = ("x", "cs_prev", "h_prev", "w", "wci", "wcf", "wco", "b")

    def cell(*values: Any) -> tuple[Any, Callable[..., Any]]:
        given = dict(zip(names, values, strict=True))
        outputs = tf.raw_ops.LSTMBlockCell(**given, **options)
        found = outputs._asdict()
        found.pop("h")

        def gradient(*grads: Any) -> list[Any]:
            back = tf.raw_ops.LSTMBlockCellGrad(
                **given,
                **found,
                cs_grad=grads[1],
                h_grad=grads[6],
                use_peephole=peephole,
            )
            x, h_prev, w = given["x"], given["h_prev"], given["w"]
            size = tf.shape(x)[1]
            rows = tf.matmul(back.dicfo, w, transpose_b=True)
            w_grad = tf.matmul(tf.concat([x, h_prev], 1), back.dicfo, transpose_a=True)
            return [
                rows[:, :size],
                back.cs_prev_grad,
                rows[:, size:],
                w_grad,
                back.wci_grad,
                back.wcf_grad,
                back.wco_grad,
                tf.reduce_sum(back.dicfo, 0),
            ]

        return tuple(outputs), gradient

    return list(tf.custom_gradient(cell)(*scope.tensors(node)))


@REGISTRY.register("GRUBlockCell")
def build_gru_cell(scope: Scope, node: Node) -> Sequence[Any]:
    """One step of a GRU: gates, candidate, state."""
    names = ("x", "h_prev", "w_ru", "w_c", "b_ru", "b_c")

    def cell(*values: Any) -> tuple[Any, Callable[..., Any]]:
        given = dict(zip(names, values, strict=True))
        r, u, c, h = tf.raw_ops.GRUBlockCell(**given)

        def gradient(*grads: Any) -> list[Any]:
            back = tf.raw_ops.GRUBlockCellGrad(**given, r=r, u=u, c=c, d_h=grads[3])
            x, h_prev = given["x"], given["h_prev"]
            gates, candidate = back.d_r_bar_u_bar, back.d_c_bar
            return [
                back.d_x,
                back.d_h_prev,
                tf.matmul(tf.concat([x, h_prev], 1), gates, transpose_a=True),
                tf.matmul(tf.concat([x, h_prev * r], 1), candidate, transpose_a=True),
                tf.reduce_sum(gates, 0),
                tf.reduce_sum(candidate, 0),
            ]

        return (r, u, c, h), gradient

    return list(tf.custom_gradient(cell)(*scope.tensors(node)))


def _attr(node: Node, name: str) -> Any:
    """An attribute, or the default of the op."""
    return op_defs.attr_value(op_defs.op_def(node.op), node.attrs, name)
