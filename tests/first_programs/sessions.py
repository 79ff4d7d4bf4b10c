"""Sessions of TensorFlow 1, for programs that write files and for checking them.

`tf.compat.v1` is TensorFlow's own: the same sessions, savers and reference variables.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

tf1 = tf.compat.v1


@contextlib.contextmanager
def new_session() -> Iterator[Any]:
    """A session on an empty, seeded graph, which is the default one inside."""
    config = tf1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    with tf1.Graph().as_default(), tf1.Session(config=config) as session:
        tf1.set_random_seed(7)
        yield session


@contextlib.contextmanager
def restored(prefix: str, **import_arguments: Any) -> Iterator[Any]:
    """A session that has imported a MetaGraph and restored its checkpoint."""
    with new_session() as session:
        saver = tf1.train.import_meta_graph(f"{prefix}.meta", **import_arguments)
        session.run(tf1.tables_initializer())
        saver.restore(session, prefix)
        yield session


def save(session: Any, directory: Any, step: Any = None) -> str:
    """Saves as every TensorFlow 1 program did; returns the prefix."""
    saver = tf1.train.Saver()
    prefix: str = saver.save(session, os.path.join(directory, "model"), step)
    return prefix


def variable(name: str, shape: list[int], value: Any = None, **arguments: Any) -> Any:
    """A reference variable, TensorFlow 1's default kind."""
    if value is None:
        value = tf1.random_normal_initializer(stddev=0.5)
    else:
        value = tf1.constant_initializer(value)
    return tf1.get_variable(
        name, shape, initializer=value, use_resource=False, **arguments
    )


def dense(x: Any, units: int, name: str) -> Any:
    """What `tf.layers.dense` made."""
    with tf1.variable_scope(name):
        kernel = variable("kernel", [x.shape[-1], units])
        return tf1.nn.bias_add(
            tf1.matmul(x, kernel), variable("bias", [units], 0.0), name="BiasAdd"
        )


def run_signature(session: Any, meta: str, key: str, values: dict[str, Any]) -> Any:
    """Runs a signature as a TensorFlow 1 program does, by the tensors it names."""
    signature = read_meta(meta).signature_def[key]
    fetches = {name: info.name for name, info in signature.outputs.items()}
    feeds = {signature.inputs[name].name: value for name, value in values.items()}
    return session.run(fetches, feeds)


def read_meta(path: str) -> Any:
    """The MetaGraphDef in a file."""
    with open(path, "rb") as file:
        return tf1.MetaGraphDef.FromString(file.read())
