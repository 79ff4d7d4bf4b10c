"""Whatever is done to a file, what comes out is a graph or one of our errors."""

import random

import pytest
import tensorflow as tf

from keras_metagraph.audit import audit_ops, check_structure
from keras_metagraph.errors import MetaGraphError
from keras_metagraph.formats.protos import read_meta_graph
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.to_proto import graph_to_proto
from keras_metagraph.graph.variables import graph_variables
from oracle.references import FIXTURES


def _with_functions() -> bytes:
    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def program(x):
        x = tf.while_loop(lambda v: v < 9.0, lambda v: [v * 2.0], [x])[0]
        return tf.cond(x > 10.0, lambda: tf.split([x, 1.0], 2)[1][0], lambda: x)

    meta_graph_def = tf.compat.v1.MetaGraphDef()
    graph = program.get_concrete_function().graph
    meta_graph_def.graph_def.CopyFrom(graph.as_graph_def())
    return meta_graph_def.SerializeToString(deterministic=True)


def _with_variables() -> bytes:
    return (FIXTURES / "zoo" / "mlp_adam_resource" / "model-20.meta").read_bytes()


def _damaged(content: bytes, randomness: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(randomness.choice([1, 2, 4])):
        place = randomness.randrange(len(data))
        kind = randomness.randrange(3)
        if kind == 0:
            data[place] ^= 1 << randomness.randrange(8)
        elif kind == 1:
            del data[place : place + randomness.randrange(1, 4)]
        else:
            data[place:place] = randomness.randbytes(2)
    return bytes(data)


@pytest.mark.parametrize("make", [_with_functions, _with_variables])
@pytest.mark.parametrize("seed", range(2))
def test_damage(make, seed, tmp_path):
    content, randomness = make(), random.Random(seed)
    path = tmp_path / "model.meta"
    read = refused = 0
    for _ in range(200):
        path.write_bytes(_damaged(content, randomness))
        try:
            meta_graph_def = read_meta_graph(str(path))
            check_structure(meta_graph_def)
            graph = graph_from_proto(meta_graph_def.graph_def)
            graph_variables(meta_graph_def, graph)
            audit_ops(graph)
            graph_to_proto(graph)
        except MetaGraphError:
            refused += 1
        else:
            read += 1
    assert read
    assert refused
