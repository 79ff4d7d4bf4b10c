"""Models with the mixin have the functions as methods."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph.errors import ExportError
from keras_metagraph.mixin import MetaGraphMixin
from keras_metagraph.saving import export_meta_graph


class Net(MetaGraphMixin, keras.Model):
    """A subclassed model with a signature of its own."""

    def __init__(self):
        super().__init__()
        self.body = layers.Dense(2, name="body")

    def call(self, x):
        return self.body(x)

    def meta_graph_signatures(self):
        return {"s": {"inputs": {"x": "x:0"}, "outputs": {"y": "body/MatMul:0"}}}


@pytest.fixture
def model():
    model = Net()
    model.compile("sgd", "mse")
    return model


def test_labels_are_those_that_fit_saw(model):
    model.fit(
        np.ones((4, 3)), np.ones((4, 2), "int32"), sample_weight=np.ones(4), verbose=0
    )
    inputs = model.export_meta_graph().signature_def["train"].inputs
    assert inputs["labels"].dtype == tf.int32.as_datatype_enum
    assert "sample_weight" in inputs


def test_collections_and_signatures_of_the_model_are_exported(model):
    model(np.ones((1, 3), "float32"))
    model.add_to_collection("classes", "cat")
    model.add_to_collection("classes", "dog")
    assert model.get_collection("classes") == ["cat", "dog"]
    assert model.get_collection("none") == []
    model.get_collection("classes").append("no")
    for exported in (model.export_meta_graph(), export_meta_graph(model)):
        classes = exported.collection_def["classes"].bytes_list.value
        assert list(classes) == [b"cat", b"dog"]
        assert "s" in exported.signature_def
    over = model.export_meta_graph(collections={"classes": ["bird"]})
    assert list(over.collection_def["classes"].bytes_list.value) == [b"bird"]
    with pytest.raises(ExportError):
        model.add_to_collection("keras_metagraph", 1)


def test_saving_gives_the_prefix(model, tmp_path):
    model(np.ones((1, 3), "float32"))
    prefix = model.save_meta_graph(tmp_path / "m", 3, graphs=["predict"])
    assert prefix == str(tmp_path / "m-3")
    assert (tmp_path / "m-3.meta").exists()
    path = tmp_path / "graph.meta"
    model.export_meta_graph(path)
    assert path.exists()


def test_a_collection_does_not_disturb_keras(model):
    model(np.ones((1, 3), "float32"))
    model.add_to_collection("variables_of_mine", model.body.kernel)
    assert [v.path.split("/")[-1] for v in model.weights] == ["kernel", "bias"]
    exported = model.export_meta_graph()
    names = exported.collection_def["variables_of_mine"].node_list.value
    assert list(names) == ["body/kernel:0"]
