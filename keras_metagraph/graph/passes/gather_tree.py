"""`GatherTree`, the op of contrib with which a beam search reads out its beams."""

import dataclasses
import functools

import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.splice import splice
from keras_metagraph.graph.to_proto import attr_functions

_PREFIX = "keras_metagraph_gather_tree_"


def upgrade_gather_tree(rewriter: build.Rewriter, node: Node) -> None:
    """Puts core ops in the place of a `GatherTree`.

    Args:
        rewriter: The graph.
        node: The node, `GatherTree(step_ids, parent_ids, max_sequence_lengths,
            end_token)`.
    """
    source, output = _program()
    arguments = [n.name for n in source.nodes.values() if n.op == "Placeholder"]
    given = dict(zip(arguments, node.inputs, strict=True))
    splice(rewriter, node, source, given, output, build.INT32)


@functools.cache
def _program() -> tuple[Graph, TensorName]:
    """The nodes of `_gather_tree`, and its result."""
    beams = tf.TensorSpec([None, None, None], tf.int32)
    lengths, token = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
    traced = tf.function(_gather_tree, autograph=False).get_concrete_function(
        beams, beams, lengths, token
    )
    graph = graph_from_proto(traced.graph.as_graph_def())
    names = {name: f"{_PREFIX}{place}" for place, name in enumerate(graph.functions)}
    library: dict[str, Function] = {}
    for name, function in graph.functions.items():
        _rename_functions(function.graph, names)
        library[names[name]] = dataclasses.replace(
            function, name=names[name], header=None
        )
        function.graph.functions = library
    _rename_functions(graph, names)
    graph.functions = library
    return graph, TensorName.parse(traced.outputs[0].name)


def _rename_functions(graph: Graph, names: dict[str, str]) -> None:
    for node in graph.nodes.values():
        for value in node.attrs.values():
            if any(True for _ in attr_functions(value)):
                value.func.name = names[value.func.name]


def _gather_tree(
    step_ids: tf.Tensor, parent_ids: tf.Tensor, lengths: tf.Tensor, end_token: tf.Tensor
) -> tf.Tensor:
    """Follows each beam from its last step to its first.

    TF 1.15 `contrib/seq2seq/kernels/beam_search_ops.cc`.

    Args:
        step_ids: Shape `(time, batch, beam)`: the token of each beam at each step.
        parent_ids: Shape `(time, batch, beam)`: the beam that it came from.
        lengths: Shape `(batch,)`: the longest beam of each sequence.
        end_token: A number: what stands behind the end.

    Returns:
        The tokens of the full beams, of the shape of `step_ids`.
    """
    time, batch, width = tf.unstack(tf.shape(step_ids))
    inside = tf.range(time)[:, None] < tf.minimum(time, lengths)[None]
    start = tf.tile(tf.range(width)[None], [batch, 1])

    def step(
        level: tf.Tensor, beams: tf.Tensor, tokens: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        here = inside[level][:, None]
        token = tf.gather(step_ids[level], beams, batch_dims=1)
        parents = tf.gather(parent_ids[level], beams, batch_dims=1)
        tokens = tokens.write(level, tf.where(here, token, end_token))
        return level - 1, tf.where(here, parents, beams), tokens

    tokens = tf.TensorArray(tf.int32, time, element_shape=[None, None])
    _, _, tokens = tf.while_loop(
        lambda level, *_: level >= 0, step, [time - 1, start, tokens]
    )
    found = tokens.stack()
    ended = tf.cumsum(tf.cast(found == end_token, tf.int32), exclusive=True) > 0
    return tf.where(ended, end_token, found)
