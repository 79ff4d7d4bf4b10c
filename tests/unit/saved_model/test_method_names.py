"""Signatures get other method names in a copy that loads."""

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from keras_metagraph import errors, save_saved_model, update_signature_methods
from oracle.references import FIXTURES

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
PREDICT = "tensorflow/serving/predict"
MULTI = FIXTURES / "zoo" / "savedmodel_builder_multi" / "saved_model"


def methods(path):
    """Method names by tags and key."""
    saved_model = SavedModel()
    saved_model.ParseFromString(Path(path, "saved_model.pb").read_bytes())
    return {
        (tuple(sorted(meta.meta_info_def.tags)), key): signature.method_name
        for meta in saved_model.meta_graphs
        for key, signature in meta.signature_def.items()
    }


def files(path):
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in Path(path).rglob("*")
        if file.is_file() and file.name != "saved_model.pb"
    }


def test_all_graphs_that_have_the_signature(tmp_path):
    path = update_signature_methods(MULTI, tmp_path / "copy", {"regress": PREDICT})
    assert path == str(tmp_path / "copy")
    before, after = methods(MULTI), methods(path)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {(("serve",), "regress"), (("gpu", "serve"), "regress")}
    assert {after[key] for key in changed} == {PREDICT}
    assert "assets/vocabulary.txt" in files(path)
    assert files(path) == files(MULTI)


def test_the_graph_of_one_set_of_tags(tmp_path):
    path = update_signature_methods(
        MULTI, tmp_path / "copy", {("gpu", "serve"): {"regress": PREDICT}}
    )
    assert methods(path)[("gpu", "serve"), "regress"] == PREDICT
    assert methods(path)[("serve",), "regress"] == REGRESS


def test_the_copy_loads_where_that_of_tensorflow_does_not(tmp_path):
    model = keras.Sequential([keras.Input((), dtype="string", name="inputs")])
    model.add(layers.StringLookup(vocabulary=["red", "blue"]))
    model.add(layers.Embedding(4, 1))
    path = save_saved_model(tmp_path / "1", model)
    signature = {"serving_default": "mine/of/my/server"}
    copy = update_signature_methods(path, tmp_path / "2", signature)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(path)
    updater.replace_method_name("serving_default", "mine/of/my/server")
    os.mkdir(tmp_path / "3")
    updater.save(str(tmp_path / "3"))
    assert methods(copy) == methods(tmp_path / "3")
    shutil.rmtree(path)
    words = tf.constant(["blue", "red"])
    loaded = tf.saved_model.load(copy).signatures["serving_default"]
    (output,) = loaded(inputs=words).values()
    np.testing.assert_allclose(output, model(words))
    with pytest.raises(tf.errors.OpError):
        tf.saved_model.load(str(tmp_path / "3"))


def test_the_fingerprint_of_other_graphs_goes(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(2)])
    model.export(tmp_path / "1", verbose=False)
    assert (tmp_path / "1" / "fingerprint.pb").exists()
    methods = {"serve": {"serving_default": "mine"}}
    copy = update_signature_methods(tmp_path / "1", tmp_path / "2", methods)
    assert not os.path.exists(f"{copy}/fingerprint.pb")
    x = tf.ones((1, 3))
    (output,) = tf.saved_model.load(copy).signatures["serving_default"](x).values()
    np.testing.assert_allclose(output, model(x))


def test_text_stays_text(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(2)])
    path = save_saved_model(tmp_path / "1", model, as_text=True)
    copy = update_signature_methods(path, tmp_path / "2", {"serving_default": "mine"})
    assert 'method_name: "mine"' in Path(copy, "saved_model.pbtxt").read_text()


def test_all_that_does_not_fit_is_said(tmp_path):
    with pytest.raises(errors.SignatureError) as info:
        update_signature_methods(
            MULTI,
            tmp_path / "copy",
            {
                "no": PREDICT,
                ("no",): {"regress": PREDICT},
                "serve": {"serving_default": CLASSIFY, "neither": PREDICT},
            },
        )
    findings = "\n".join(info.value.findings)
    for part in ("no: there is no such", "['no']: there", "neither: ", "'inputs'"):
        assert part in findings
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        ({"regress": "predict"}, "regress: the full method name is 'tensorflow/serv"),
        ({"regress": 3}, "regress: the method name 3 is no text"),
        (["regress"], "['regress'] is no dict of method names by key"),
    ],
)
def test_what_is_no_method_name(tmp_path, given, finding):
    with pytest.raises(errors.SignatureError) as info:
        update_signature_methods(MULTI, tmp_path / "copy", given)
    assert all(line.startswith(finding) for line in info.value.findings)
    assert os.listdir(tmp_path) == []


def test_what_is_no_saved_model(tmp_path):
    with pytest.raises(errors.FormatError):
        update_signature_methods(tmp_path, tmp_path / "copy", {})
    prefix = FIXTURES / "zoo" / "mlp_adam" / "model-20"
    with pytest.raises(errors.FormatError, match="no SavedModel"):
        update_signature_methods(prefix, tmp_path / "copy", {})


def test_links_that_lead_out_are_refused(tmp_path):
    shutil.copytree(MULTI, tmp_path / "1")
    (tmp_path / "secret").write_text("mine")
    for name in ("assets/a.txt", "b"):
        (tmp_path / "1" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(errors.UntrustedContentError) as info:
        update_signature_methods(tmp_path / "1", tmp_path / "2", {"regress": PREDICT})
    assert len(info.value.findings) == 2
    assert sorted(os.listdir(tmp_path)) == ["1", "secret"]
