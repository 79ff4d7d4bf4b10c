import io
import json
import shutil

import pytest
import tensorflow as tf
from rich.console import Console

from keras_metagraph import inspect_meta_graph
from keras_metagraph.errors import FormatError, SignatureError
from oracle.references import FIXTURES

v1 = tf.compat.v1
ZOO = FIXTURES / "zoo"


def write(meta, directory):
    path = directory / "model.meta"
    path.write_bytes(meta.SerializeToString())
    return path


def graph_with(build):
    """A MetaGraphDef of a dense layer, with what `build(x)` adds on the way."""
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, 4], "x")
        w = v1.get_variable("w", [4, 3], use_resource=False)
        tf.matmul(build(x), w, name="y")
        return v1.train.export_meta_graph()


def test_shows_what_a_file_holds():
    report = inspect_meta_graph(ZOO / "mlp_adam" / "model-20")
    (graph,) = report.meta_graphs

    assert report.kind == "meta_graph"
    assert report.checkpoint.endswith("model-20")
    assert graph.tensorflow == "1.15.5"
    assert graph.written_by == "TensorFlow 1.15.5"
    assert graph.producer == 134
    assert graph.own is False
    assert graph.nodes == 236
    assert next(iter(graph.ops)) == "Const"
    assert graph.interface.inputs == {"x": "x:0"}
    assert graph.interface.loss == "loss:0"
    assert str(graph.tensors["x:0"]) == "float32 (None, 12)"
    assert [str(each) for each in graph.optimizers] == [
        "Adam(learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-08)"
    ]
    collections = {c.name: (c.count, c.kind) for c in graph.collections}
    assert collections["trainable_variables"] == (4, "variables")
    assert collections["hparams"] == (1, "byte strings")
    assert collections["train_op"] == (2, "nodes")


def test_compares_variables_with_the_checkpoint():
    (graph,) = inspect_meta_graph(ZOO / "estimator_dnn" / "model_dir").meta_graphs
    variables = {variable.name: variable for variable in graph.variables}

    kernel = variables["dnn/logits/kernel/part_0"]
    assert kernel.key == "dnn/logits/kernel"
    assert kernel.stored is True
    assert kernel.trainable is True
    assert (kernel.dtype, kernel.shape) == ("float32", (4, 1))
    assert graph.unused == ()


def test_shows_every_graph_of_a_saved_model():
    path = ZOO / "savedmodel_builder_multi" / "saved_model"
    report = inspect_meta_graph(path)

    assert [graph.tags for graph in report.meta_graphs] == [
        ("train",),
        ("serve",),
        ("serve", "gpu"),
    ]
    serving = {s.name: s for s in report.meta_graphs[1].signatures}
    assert serving["serving_default"].inputs["tokens"].dtype == "string"
    assert serving["classify"].method == "tensorflow/serving/classify"
    # Slots are in the checkpoint for the sake of the graph that trains.
    assert report.meta_graphs[1].unused == ()

    (one,) = inspect_meta_graph(path, tags=["gpu", "serve"]).meta_graphs
    assert one.tags == ("serve", "gpu")
    with pytest.raises(SignatureError, match="serve"):
        inspect_meta_graph(path, tags="serv")


def test_says_what_is_refused_and_what_for(tmp_path):
    meta = graph_with(lambda x: v1.py_func(lambda a: a, [x], tf.float32))
    meta.graph_def.node.add(name="read", op="ReadFile", input=["path"])
    path = meta.graph_def.node.add(name="path", op="Placeholder")
    path.attr["dtype"].type = tf.string.as_datatype_enum

    report = inspect_meta_graph(write(meta, tmp_path))

    refused = {each.op: each for each in report.meta_graphs[0].refused}
    assert refused["PyFunc"].needed_by == "outputs"
    assert refused["PyFunc"].category == "python_callback"
    assert refused["ReadFile"].needed_by == ""
    assert report.blocked
    assert "calls Python functions" in str(report).replace("\n", " ")


def test_looks_into_functions_that_the_model_calls(tmp_path):
    @tf.function
    def read(x):
        return x + tf.strings.to_number(tf.io.read_file("secret"))

    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None], "x")
        tf.identity(read(x), "y")
        meta = v1.train.export_meta_graph()
    (graph,) = inspect_meta_graph(write(meta, tmp_path)).meta_graphs

    assert [(each.op, each.needed_by) for each in graph.refused] == [
        ("ReadFile", "outputs")
    ]
    assert graph.functions > 0


def test_the_checkpoint_operations_are_not_needed():
    (graph,) = inspect_meta_graph(ZOO / "cnn_bn_momentum").meta_graphs

    assert {each.op for each in graph.refused} == {"SaveV2", "RestoreV2"}
    assert not graph.blocked


def test_a_graph_without_checkpoint(tmp_path):
    report = inspect_meta_graph(write(graph_with(tf.identity), tmp_path))
    (graph,) = report.meta_graphs

    assert report.checkpoint is None
    assert [variable.stored for variable in graph.variables] == [None]
    assert "checkpoint  none" in str(report)


def test_a_damaged_checkpoint_is_noted(tmp_path):
    for file in (ZOO / "text_meta").glob("model-20.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "model-20.index").write_bytes(b"nonsense")

    report = inspect_meta_graph(tmp_path / "model-20.meta")

    assert "cannot be opened" in report.note
    assert report.note.split()[0] in str(report)
    assert report.meta_graphs[0].interface.inputs == {"x": "x:0"}


def test_a_graph_that_does_not_hold_together_is_counted(tmp_path):
    meta = graph_with(tf.identity)
    meta.graph_def.node.add(name="broken", op="Relu", input=["nowhere"])

    (graph,) = inspect_meta_graph(write(meta, tmp_path)).meta_graphs

    assert graph.nodes == len(meta.graph_def.node)
    assert "nowhere" in graph.problems[0]
    assert graph.variables == ()


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FormatError):
        inspect_meta_graph(tmp_path / "nothing")


@pytest.mark.parametrize(
    "name", ["mlp_adam", "wide_math", "estimator_dnn/export_all", "transformer_adamw"]
)
def test_is_readable_in_80_columns_and_as_json(name):
    report = inspect_meta_graph(ZOO / name)
    lines = str(report).splitlines()

    assert max(map(len, lines)) <= 80
    assert len(lines) < 150 * len(report.meta_graphs)
    plain = json.loads(json.dumps(report.to_dict()))
    assert len(plain["meta_graphs"]) == len(report.meta_graphs)
    assert plain["meta_graphs"][0]["variables"]


def test_shows_itself_in_rich_consoles():
    console = Console(file=io.StringIO(), width=120, record=True)
    console.print(inspect_meta_graph(ZOO / "mlp_adam"))

    text = console.export_text()
    for word in ("Interface", "Variables", "Collections", "Adam(", "is_training:0"):
        assert word in text
