"""Parsing of `tf.Example`s: version 2 of the op also reads ragged features."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_metagraph.export.rewrites.rewriter import Rewrite, Rewriter
from keras_metagraph.graph.ir import TensorName


def rewrite_parse_example(rewriter: Rewriter) -> str | None:
    """Takes version 1, to which a ragged feature is a sparse one.

    `ParseExampleV2(serialized, names, sparse_keys, dense_keys, ragged_keys, defaults)`
    has the keys of each kind in one vector; version 1 has an input for each.
    """
    keys = [rewriter.constant(place) for place in (2, 3, 4)]
    if any(found is None for found in keys):
        return "the names of its features are not constants"
    if rewriter.shape(0) == []:
        return "it parses one example alone: tf.io.parse_example takes a vector"
    sparse, dense, ragged = keys
    inputs = [
        *rewriter.node.inputs[:2],
        *_constants(rewriter, [*sparse, *ragged]),
        *_constants(rewriter, dense),
        *rewriter.node.inputs[5:],
    ]
    attrs = rewriter.node.attrs
    types = _types(rewriter, "sparse_types") + _types(rewriter, "ragged_value_types")
    kept = {name: attrs[name] for name in ("Tdense", "dense_shapes", "sparse_types")}
    kept["sparse_types"].list.type[:] = [dtype.as_datatype_enum for dtype in types]
    counts = {"Nsparse": len(types), "Ndense": len(dense)}
    if not len(ragged):
        rewriter.replace("ParseExample", inputs, **counts)
        rewriter.node.attrs.update(kept)
        return None
    parsed = rewriter.add("parsed", "ParseExample", inputs, **counts).node
    rewriter.graph.nodes[parsed].attrs.update(kept)
    _in_the_order_of_version_2(rewriter, parsed, len(sparse), len(dense))
    return None


def _in_the_order_of_version_2(
    rewriter: Rewriter, parsed: str, sparse: int, dense: int
) -> None:
    """Makes the node what its op gives: the ragged features behind the others.

    Both versions give indices, values and shapes of the sparse features, then the
    dense ones; version 2 then values and row splits of the ragged ones.
    """
    split_types = _types(rewriter, "ragged_split_types")
    sparse_types = _types(rewriter, "sparse_types")
    every = sparse + len(split_types)

    def outputs(part: int, places: Sequence[int]) -> list[TensorName]:
        return [TensorName(parsed, part * every + place) for place in places]

    plain, ragged = range(sparse), range(sparse, every)
    splits = [
        _row_splits(rewriter, indices, shape, dtype)
        for indices, shape, dtype in zip(
            outputs(0, ragged), outputs(2, ragged), split_types, strict=True
        )
    ]
    whole = [tf.int64] * sparse
    types = [*whole, *sparse_types[:sparse], *whole, *_types(rewriter, "Tdense")]
    rewriter.replace(
        "IdentityN",
        [
            *(tensor for part in range(3) for tensor in outputs(part, plain)),
            *outputs(3, range(dense)),
            *outputs(1, ragged),
            *splits,
        ],
        T=[*types, *sparse_types[sparse:], *split_types],
    )


def _row_splits(
    rewriter: Rewriter, indices: TensorName, shape: TensorName, dtype: tf.DType
) -> TensorName:
    """Where each row of a sparse matrix begins and ends among its values."""

    def constant(value: Any, kind: tf.DType = tf.int32) -> TensorName:
        return rewriter.add_constant("value", value, kind)

    first = constant(0)
    rows = rewriter.add(
        "rows",
        "GatherV2",
        [indices, first, constant(1)],
        Tparams=tf.int64,
        Tindices=tf.int32,
        Taxis=tf.int32,
    )
    count = rewriter.add(
        "row_count",
        "GatherV2",
        [shape, first, first],
        Tparams=tf.int64,
        Tindices=tf.int32,
        Taxis=tf.int32,
    )
    one = constant(1, tf.int64)
    end = rewriter.add("end", "AddV2", [count, one], T=tf.int64)
    starts = [constant(0, tf.int64), end, one]
    numbers = rewriter.add("row_numbers", "Range", starts, Tidx=tf.int64)
    lifted = [
        rewriter.add("lifted", "ExpandDims", [each, first], T=tf.int64, Tdim=tf.int32)
        for each in (rows, numbers)
    ]
    found = rewriter.add("found", "LowerBound", lifted, T=tf.int64, out_type=tf.int64)
    flat = [found, constant([-1])]
    splits = rewriter.add("splits", "Reshape", flat, T=tf.int64, Tshape=tf.int32)
    return rewriter.cast(splits, tf.int64, dtype)


def _constants(rewriter: Rewriter, keys: Sequence[bytes]) -> list[TensorName]:
    return [rewriter.add_constant("key", key, tf.string) for key in keys]


def _types(rewriter: Rewriter, name: str) -> list[tf.DType]:
    return [tf.as_dtype(each) for each in rewriter.node.attrs[name].list.type]


REWRITES: dict[str, Rewrite] = {"ParseExampleV2": rewrite_parse_example}
