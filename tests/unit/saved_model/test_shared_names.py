"""Graphs of legacy files in one SavedModel: equal values are shared, others refused."""

import pytest
import tensorflow as tf

import keras_metagraph as kmg
from keras_metagraph.errors import ExportError
from oracle.references import FIXTURES

MULTI = FIXTURES / "zoo" / "savedmodel_builder_multi" / "saved_model"


def load(*tags):
    return kmg.load_from_meta_graph(MULTI, tags=tags)


def test_graphs_of_one_saved_model_share_their_values_again(tmp_path):
    graphs = {("serve",): load("serve"), ("serve", "gpu"): load("serve", "gpu")}

    kmg.save_saved_model(tmp_path / "out", graphs)

    prefix = str(tmp_path / "out" / "variables" / "variables")
    names = [name for name, _ in tf.train.list_variables(prefix)]
    assert names == ["model/embedding", "model/logits/bias", "model/logits/kernel"]


def test_other_values_of_a_name_are_refused(tmp_path):
    serve, gpu = load("serve"), load("serve", "gpu")
    bias = gpu.meta_graph.variables["model/logits/bias"]
    bias.assign(bias + 1.0)

    with pytest.raises(ExportError, match="other values") as caught:
        kmg.save_saved_model(
            tmp_path / "out", {("serve",): serve, ("serve", "gpu"): gpu}
        )

    assert len(caught.value.findings) == 1
    assert "model/logits/bias" in caught.value.findings[0]
    assert not (tmp_path / "out").exists()
