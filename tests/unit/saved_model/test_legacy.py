"""Models that go on with the graph of a file of TensorFlow 1, in SavedModels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph import errors, load_from_meta_graph, save_saved_model
from oracle import references
from oracle.saved_models import files, read

MLP = references.FIXTURES / "zoo" / "mlp_adam" / "model-20"
CONV_NET = references.FIXTURES / "zoo" / "cnn_bn_momentum"


@pytest.fixture(scope="module")
def mlp():
    return load_from_meta_graph(MLP)


def shapes(path):
    return dict(tf.train.list_variables(f"{path}/variables/variables"))


def test_the_graphs_have_what_a_loader_needs(mlp, tmp_path):
    path = save_saved_model(tmp_path / "1", {"serve": mlp, "train": mlp})
    graphs = read(path)
    assert list(graphs) == [("serve",), ("train",)]
    assert "serving_default" in graphs["serve",].signature_def
    train = graphs["train",]
    assert {"train", "__saved_model_train_op"} <= set(train.signature_def)
    (train_op,) = train.collection_def["saved_model_train_op"].node_list.value
    assert train_op in {node.name for node in train.graph_def.node}
    assert shapes(path) == dict(tf.train.list_variables(str(MLP)))
    # Nothing of the file's own graph is lost.
    names = {node.name for node in mlp.meta_graph.graph_def.node}
    for graph in graphs.values():
        assert names <= {node.name for node in graph.graph_def.node}


def test_flags_have_the_value_of_their_graph(tmp_path):
    model = load_from_meta_graph(CONV_NET)
    path = save_saved_model(tmp_path / "1", {"serve": model, "train": model})
    for (tag,), graph in read(path).items():
        nodes = {node.name: node for node in graph.graph_def.node}
        flag = nodes["is_training"]
        assert flag.op == "PlaceholderWithDefault"
        default = tf.make_ndarray(nodes[flag.input[0]].attr["value"].tensor)
        assert default == (tag == "train")


def test_a_model_around_the_graph_shares_its_variables(mlp, tmp_path):
    inputs = keras.Input(mlp.input_shape[1:], name="features")
    hidden = mlp(inputs)["logits"]
    head = keras.Model(inputs, keras.layers.Dense(1, name="head")(hidden))
    alone = save_saved_model(tmp_path / "1", mlp)
    both = save_saved_model(tmp_path / "2", {"legacy": mlp, "serve": head})
    added = shapes(both).keys() - shapes(alone).keys()
    assert added == {"head/kernel", "head/bias"}
    loaded = tf.saved_model.load(both, tags=["serve"]).signatures["serving_default"]
    x = np.random.default_rng(1).normal(size=(3, *mlp.input_shape[1:]))
    x = tf.constant(x, tf.float32)
    (output,) = loaded(features=x).values()
    np.testing.assert_allclose(output, head(x), rtol=1e-5, atol=1e-6)


def test_names_that_mean_different_variables(mlp, tmp_path):
    other = load_from_meta_graph(MLP)
    other.fit(
        np.zeros((2, *mlp.input_shape[1:]), "float32"), np.zeros(2, "int64"), verbose=0
    )
    with pytest.raises(errors.ExportError) as info:
        save_saved_model(tmp_path / "1", {"a": mlp, "b": other})
    assert len(info.value.findings) > 4
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [{"main_op": lambda: None}, {"signatures": {"own": tf.function(abs)}}]
)
def test_functions_are_not_added_to_the_graph(arguments, mlp, tmp_path):
    with pytest.raises(errors.MetaGraphError, match="goes on with the graph"):
        save_saved_model(tmp_path / "1", mlp, **arguments)


def test_vocabularies_are_files_again(tmp_path):
    source = references.FIXTURES / "zoo" / "savedmodel_builder_multi" / "saved_model"
    model = load_from_meta_graph(source, tags=["serve"])
    path = save_saved_model(tmp_path / "1", model)
    words = (source / "assets" / "vocabulary.txt").read_bytes().splitlines()
    # Two tables of one vocabulary.
    (content,) = files(f"{path}/assets").values()
    assert content == b"".join(b"%s\t%d\n" % (w, i) for i, w in enumerate(words))
    (graph,) = read(path).values()
    assert len(graph.asset_file_def) == 2
    assert not any(
        node.op.startswith("LookupTableImport") for node in graph.graph_def.node
    )


def test_default_attributes_are_stripped(mlp, tmp_path):
    sizes = []
    for name, strip in (("1", False), ("2", True)):
        path = save_saved_model(tmp_path / name, mlp, strip_default_attrs=strip)
        (graph,) = read(path).values()
        assert graph.meta_info_def.stripped_default_attrs == strip
        sizes.append(graph.graph_def.ByteSize())
        x = tf.ones((2, *mlp.input_shape[1:]))
        outputs = tf.saved_model.load(path).signatures["serving_default"](x)
        np.testing.assert_allclose(outputs["logits"], mlp(x)["logits"], rtol=1e-5)
    assert sizes[1] < sizes[0]
