"""Finding variables, and where the checkpoint keeps them."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.variable_pb2 import VariableDef

from keras_metagraph.errors import FormatError
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.graph.restore_wiring import Slice, parse_slice
from keras_metagraph.graph.variables import graph_variables

v1 = tf.compat.v1


@contextlib.contextmanager
def _building():
    with tf.Graph().as_default() as graph:
        yield graph


def _export(graph, saver=None):
    with graph.as_default():
        return v1.train.export_meta_graph(
            saver_def=None if saver is None else saver.saver_def
        )


def _variables(meta_graph_def):
    return graph_variables(meta_graph_def, graph_from_proto(meta_graph_def.graph_def))


def _variable(name, shape=(2, 3), use_resource=False, **options):
    return v1.get_variable(name, shape, use_resource=use_resource, **options)


@pytest.mark.parametrize("use_resource", [False, True])
class TestBothKinds:
    def test_describes_a_variable(self, use_resource):
        with _building() as graph, v1.variable_scope("dense"):
            _variable("kernel", use_resource=use_resource)
            saver = v1.train.Saver()
        found = _variables(_export(graph, saver))
        assert list(found) == ["dense/kernel"]
        variable = found["dense/kernel"]
        assert variable.op == ("VarHandleOp" if use_resource else "VariableV2")
        assert variable.dtype == tf.float32
        assert variable.shape == (2, 3)
        assert variable.trainable
        assert variable.collections == {"variables", "trainable_variables"}
        assert variable.checkpoint_key == "dense/kernel"
        assert variable.slice is None
        assert variable.initializer == "dense/kernel/Assign"
        initial = variable.initial_value.node
        assert initial.startswith("dense/kernel/Initializer/")

    def test_not_trainable(self, use_resource):
        with _building() as graph:
            _variable("step", [], use_resource, dtype=tf.int64, trainable=False)
        variable = _variables(_export(graph))["step"]
        assert not variable.trainable
        assert variable.dtype == tf.int64
        assert variable.shape == ()

    def test_other_names_in_the_checkpoint(self, use_resource):
        with _building() as graph:
            a = _variable("a", use_resource=use_resource)
            b = _variable("b", use_resource=use_resource)
            saver = v1.train.Saver({"b": a, "other:0": b})
        found = _variables(_export(graph, saver))
        assert found["a"].checkpoint_key == "b"
        assert found["b"].checkpoint_key == "other:0"

    def test_variables_that_the_saver_leaves_out(self, use_resource):
        with _building() as graph:
            a = _variable("a", use_resource=use_resource)
            _variable("b", use_resource=use_resource)
            saver = v1.train.Saver([a])
        found = _variables(_export(graph, saver))
        assert found["a"].checkpoint_key == "a"
        assert found["b"].checkpoint_key is None
        assert found["b"].initializer == "b/Assign"

    def test_parts_of_a_partitioned_variable(self, use_resource):
        with _building() as graph:
            _variable(
                "emb",
                (7, 4),
                use_resource,
                partitioner=v1.fixed_size_partitioner(3),
            )
            saver = v1.train.Saver()
        found = _variables(_export(graph, saver))
        assert [v.checkpoint_key for v in found.values()] == ["emb"] * 3
        assert found["emb/part_1"].slice == Slice("emb", (7, 4), (3, 0), (2, 4))
        assert found["emb/part_1"].shape == (2, 4)

    def test_parts_without_a_saver(self, use_resource):
        with _building() as graph:
            _variable(
                "emb", (7, 4), use_resource, partitioner=v1.fixed_size_partitioner(3)
            )
        variable = _variables(_export(graph))["emb/part_2"]
        assert variable.checkpoint_key == "emb"
        assert variable.slice == Slice("emb", (7, 4), (5, 0), (2, 4))

    def test_part_that_is_saved_under_its_own_name_is_whole(self, use_resource):
        # With a saver that stores it whole, the slice info of its VariableDef is not
        # the truth.
        with _building() as graph:
            _variable(
                "emb", (6, 4), use_resource, partitioner=v1.fixed_size_partitioner(2)
            )
            saver = v1.train.Saver()
        meta_graph_def = _export(graph, saver)
        for node in meta_graph_def.graph_def.node:
            if node.name == "save/RestoreV2/shape_and_slices":
                values = node.attr["value"].tensor.string_val
                values[:] = [b""] * len(values)
        assert _variables(meta_graph_def)["emb/part_0"].slice is None

    @pytest.mark.parametrize(
        "options", [{"sharded": True}, {"restore_sequentially": True}, {"name": "own"}]
    )
    def test_savers_of_other_forms(self, use_resource, options):
        with _building() as graph:
            with tf.device("/job:ps/task:0"):
                a = _variable("a", use_resource=use_resource)
            with tf.device("/job:ps/task:1"):
                b = _variable("b", use_resource=use_resource)
            saver = v1.train.Saver({"x": a, "y": b}, **options)
        found = _variables(_export(graph, saver))
        assert found["a"].checkpoint_key == "x"
        assert found["b"].checkpoint_key == "y"

    def test_saver_that_reshapes(self, use_resource):
        with _building() as graph:
            a = _variable("a", use_resource=use_resource)
            saver = v1.train.Saver([a], reshape=True)
        assert _variables(_export(graph, saver))["a"].reshape

    def test_saver_of_the_file_among_several(self, use_resource):
        with _building() as graph:
            a = _variable("a", use_resource=use_resource)
            b = _variable("b", use_resource=use_resource)
            v1.train.Saver({"wrong": a, "too": b})
            saver = v1.train.Saver({"right": a})
        found = _variables(_export(graph, saver))
        assert found["a"].checkpoint_key == "right"
        assert found["b"].checkpoint_key is None

    def test_saver_that_the_file_does_not_name(self, use_resource):
        with _building() as graph:
            a = _variable("a", use_resource=use_resource)
            v1.train.Saver({"key": a})
        meta_graph_def = _export(graph)
        assert not meta_graph_def.HasField("saver_def")
        assert _variables(meta_graph_def)["a"].checkpoint_key == "key"

    def test_assignments_that_restore_are_no_initializers(self, use_resource):
        with _building() as graph:
            a = _variable("a", use_resource=use_resource)
            saver = v1.train.Saver([a])
        meta_graph_def = _export(graph, saver)
        nodes = meta_graph_def.graph_def.node
        for key in ("variables", "trainable_variables"):
            del meta_graph_def.collection_def[key]
        kept = [node for node in nodes if node.name != "a/Assign"]
        del nodes[:]
        nodes.extend(kept)
        assert _variables(meta_graph_def)["a"].initializer is None

    def test_initial_value_of_a_variable_in_no_collection(self, use_resource):
        with _building() as graph:
            _variable("a", use_resource=use_resource, collections=[], trainable=False)
        variable = _variables(_export(graph))["a"]
        assert variable.collections == frozenset()
        assert variable.initializer == "a/Assign"
        assert not variable.trainable


def test_first_of_several_savers_where_the_file_names_none():
    with _building() as graph:
        a, b = _variable("a"), _variable("b")
        v1.train.Saver({"first": a})
        v1.train.Saver({"second": a, "b": b})
    found = _variables(_export(graph))
    assert found["a"].checkpoint_key == "first"
    assert found["b"].checkpoint_key is None


def test_initializer_that_an_init_operation_runs():
    with _building() as graph:
        a = _variable("a", collections=[], trainable=False)
        other = v1.assign(a, tf.ones([2, 3]), name="elsewhere").op
        tf.group(other, name="scope/init_all")
    meta_graph_def = _export(graph)
    nodes = meta_graph_def.graph_def.node
    kept = [node for node in nodes if node.name != "a/Assign"]
    del nodes[:]
    nodes.extend(kept)
    assert _variables(meta_graph_def)["a"].initializer == "elsewhere"


def test_reference_types_become_plain_ones():
    with _building() as graph:
        _variable("a")
    meta_graph_def = _export(graph)
    (node,) = (n for n in meta_graph_def.graph_def.node if n.name == "a")
    node.attr["dtype"].type = 101
    assert _variables(meta_graph_def)["a"].dtype == tf.float32


def test_warm_start_from_another_checkpoint_is_not_the_saver(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        _variable("old")
        session.run(v1.global_variables_initializer())
        other = v1.train.Saver().save(session, str(tmp_path / "other"))
    with _building() as graph:
        _variable("new")
        v1.train.init_from_checkpoint(other, {"old": "new"})
        saver = v1.train.Saver()
    assert _variables(_export(graph, saver))["new"].checkpoint_key == "new"
    assert _variables(_export(graph))["new"].checkpoint_key == "new"


def test_old_restore_ops():
    """As TF 0.12 wrote them: one op a variable, its key a scalar."""
    with _building() as graph:
        a = _variable("a", (4, 2))
        b = _variable("b", (3, 2))
        whole = tf.raw_ops.Restore(file_pattern="f", tensor_name="w:0", dt=tf.float32)
        part = tf.raw_ops.RestoreSlice(
            file_pattern="f",
            tensor_name="emb",
            shape_and_slice="9 2 6,3:-",
            dt=tf.float32,
        )
        assigns = [
            tf.raw_ops.Assign(ref=a._ref(), value=whole, validate_shape=False).op,
            tf.raw_ops.Assign(ref=b._ref(), value=part, validate_shape=False).op,
        ]
        tf.group(*assigns, name="save/restore_all")
    found = _variables(_export(graph))
    assert found["a"].checkpoint_key == "w:0"
    assert found["a"].slice is None
    assert found["b"].checkpoint_key == "emb"
    assert found["b"].slice == Slice("emb", (9, 2), (6, 0), (3, 2))


def test_shared_name_is_not_the_key():
    with _building() as graph:
        handle = tf.raw_ops.VarHandleOp(
            dtype=tf.float32, shape=[2], shared_name="elsewhere", name="here"
        )
        tf.raw_ops.AssignVariableOp(resource=handle, value=[1.0, 2.0])
    found = _variables(_export(graph))
    assert list(found) == ["here"]
    assert found["here"].checkpoint_key == "here"


def test_unknown_shapes():
    with _building() as graph:
        v1.Variable(
            tf.zeros([2]),
            validate_shape=False,
            use_resource=False,
            name="free",
        )
        handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[None, 3], name="half")
        tf.raw_ops.AssignVariableOp(resource=handle, value=np.zeros([2, 3], np.float32))
    found = _variables(_export(graph))
    assert found["free"].shape is None
    assert found["half"].shape == (None, 3)


def test_collections_of_names():
    with _building() as graph:
        variable = _variable("a")
        v1.add_to_collection("favourites", variable)
        v1.add_to_collection("favourites", tf.constant(1.0, name="no_variable"))
    assert "favourites" in _variables(_export(graph))["a"].collections


def test_collections_of_other_things_are_left_alone():
    with _building() as graph:
        _variable("a")
    meta_graph_def = _export(graph)
    meta_graph_def.collection_def["mine"].bytes_list.value.append(b"\xff\xff no proto")
    meta_graph_def.collection_def["text"].bytes_list.value.append(b"a:0")
    meta_graph_def.collection_def["gone"].bytes_list.value.append(
        VariableDef(variable_name="not_there:0").SerializeToString()
    )
    found = _variables(meta_graph_def)
    assert list(found) == ["a"]
    assert found["a"].collections == {"variables", "trainable_variables"}


def test_definitions_without_initial_value_name():
    """VariableDef of TF 0.12 and 1.0: neither initial_value_name nor trainable."""
    with _building() as graph:
        _variable("a")
    meta_graph_def = _export(graph)
    for key in ("variables", "trainable_variables"):
        values = meta_graph_def.collection_def[key].bytes_list.value
        definition = VariableDef.FromString(values[0])
        definition.ClearField("initial_value_name")
        definition.ClearField("trainable")
        values[0] = definition.SerializeToString()
    variable = _variables(meta_graph_def)["a"]
    assert variable.trainable
    assert variable.initial_value is not None


def test_initializer_of_a_variable_definition_counts():
    with _building() as graph:
        a = _variable("a")
        v1.assign(a, tf.ones([2, 3]), name="a_first")
    meta_graph_def = _export(graph)
    values = meta_graph_def.collection_def["variables"].bytes_list.value
    definition = VariableDef.FromString(values[0])
    definition.initializer_name = "a_first"
    values[0] = definition.SerializeToString()
    variable = _variables(meta_graph_def)["a"]
    assert variable.initializer == "a_first"
    assert variable.initial_value == TensorName("ones", 0)


@pytest.mark.parametrize("number", [None, 0, 9999])
def test_variable_without_a_type(number):
    with _building() as graph:
        _variable("a")
    meta_graph_def = _export(graph)
    (node,) = (n for n in meta_graph_def.graph_def.node if n.name == "a")
    if number is None:
        del node.attr["dtype"]
    else:
        node.attr["dtype"].type = number
    with pytest.raises(FormatError, match="'a'"):
        _variables(meta_graph_def)


def test_circle_behind_an_assignment_ends():
    with _building() as graph:
        _variable("a")
        saver = v1.train.Saver()
    meta_graph_def = _export(graph, saver)
    for node in meta_graph_def.graph_def.node:
        if node.name == "save/Assign":
            node.input[1] = "loop"
    meta_graph_def.graph_def.node.add(name="loop", op="Identity", input=["loop"])
    assert _variables(meta_graph_def)["a"].checkpoint_key == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("10 4 0,5:-", Slice("w", (10, 4), (0, 0), (5, 4))),
        ("10 -", Slice("w", (10,), (0,), (10,))),
        ("10 4 0,5", None),
        ("10 4 0,x:-", None),
        ("10 4 0,1,2:-", None),
        ("ten 0,5", None),
    ],
)
def test_parse_slice(text, expected):
    assert parse_slice("w", text) == expected
