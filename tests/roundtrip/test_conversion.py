"""Conversions: what comes out predicts what went in, in TensorFlow and in Keras."""

import os
import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_metagraph as kmg
from keras_metagraph.conversion import convert
from keras_metagraph.errors import (
    CustomObjectError,
    ExportError,
    FormatError,
    SignatureError,
)
from keras_metagraph.formats import open_export
from oracle.references import FIXTURES, exports

ZOO = FIXTURES / "zoo"
MULTI = ZOO / "savedmodel_builder_multi" / "saved_model"
TOLERANCE = 1e-5
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)

# Runs several of the other scripts in one process, which costs seconds to start.
MANY = """
import importlib

def main(arrays, args):
    results = {}
    for name, (script, settings) in args.items():
        prefix = name + "|"
        own = {k[len(prefix):]: v for k, v in arrays.items() if k.startswith(prefix)}
        found = importlib.import_module(script).main(own, settings)
        results.update((prefix + key, value) for key, value in found.items())
    return results
"""


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Every export as a SavedModel, that as a MetaGraph again, and one directly."""
    root = tmp_path_factory.mktemp("converted")
    found = {}
    for export in exports():
        saved_model = root / export.name / "exported"
        again = root / export.name / "again" / "model.meta"
        tags = export.source.tags
        first = convert(export.source.path, saved_model, tags=tags)
        second = convert(saved_model, again)
        direct = root / export.name / "direct" / "model.meta"
        convert(export.source.path, direct, tags=tags)
        found[export.name] = saved_model, again, first, second, direct
    return found


def meta_graph(path):
    """The settings by which the script `session` opens a MetaGraph."""
    return {"meta": path, "checkpoint": str(path).removesuffix(".meta")}


def assert_close(found, expected, name):
    if expected.dtype.kind == "S":
        assert found.astype("S").tolist() == expected.tolist(), name
    else:
        np.testing.assert_allclose(found, expected, TOLERANCE, TOLERANCE, err_msg=name)


def test_tensorflow_1_predicts_what_was_recorded(converted, tf115):
    """Of the SavedModels, and of the MetaGraphs that were made of them."""
    arrays, jobs, expected = {}, {}, {}
    for export in exports():
        saved_model, again, _, _, direct = converted[export.name]
        tags = list(export.source.tags or ["serve"])
        settings = {"fetches": export.fetches}
        for where, script, opened in (
            ("saved_model", "saved_model", {"saved_model": saved_model, "tags": tags}),
            ("meta", "session", meta_graph(again)),
            ("direct", "session", meta_graph(direct)),
        ):
            name = f"{export.name} {where}"
            jobs[name] = script, {**opened, **settings}
            for key, tensor in export.feeds.items():
                arrays[f"{name}|feed/{tensor}"] = export.inputs[key]
            for key, value in export.outputs.items():
                expected[f"{name}|fetch/{key}"] = value

    found = tf115(MANY, arrays, jobs)

    assert len(expected) >= 3 * len(exports())
    for name, value in expected.items():
        assert_close(found[name], value, name)


def test_tensorflow_1_goes_on_training(converted, tf115):
    """The first recorded steps, from a graph that went through a SavedModel."""
    chosen = [e for e in exports() if e.training and e.training.source == e.source]
    chosen = [
        e for e in chosen if e.source.kind == "meta_graph" and e.name[:3] == "zoo"
    ]
    arrays, jobs = {}, {}
    for export in chosen:
        again, training = converted[export.name][1], export.training
        jobs[export.name] = (
            "session",
            {
                **meta_graph(again),
                "edits": training.edits,
                "loss": training.loss,
                "train_op": training.train_op,
                "constants": training.constants,
                "after": False,
            },
        )
        for key, tensor in training.feeds.items():
            arrays[f"{export.name}|step/{tensor}"] = training.arrays[key]

    found = tf115(MANY, arrays, jobs)

    assert len(chosen) >= 6
    for export in chosen:
        losses = found[f"{export.name}|losses"]
        assert_close(losses, export.training.losses, export.name)


READS_FILE = "InitializeTableFromTextFile"


@pytest.mark.parametrize("export", exports(), ids=repr)
def test_the_graph_stays_the_graph(converted, export):
    saved_model, again, first, second, _ = converted[export.name]

    before = open_export(export.source.path).select(export.source.tags)
    graphs = [before, *(open_export(p).select() for p in (saved_model, again))]

    ops, saved_ops, again_ops = (
        {node.name: node.op for node in graph.graph_def.node} for graph in graphs
    )
    # Beside a .meta there are no files: tables that read them have constants there.
    readers = {n for n, op in saved_ops.items() if op.startswith(READS_FILE)}
    words = {f"{name}/{part}" for name in readers for part in ("keys", "values")}
    differing = dict(saved_ops.items() ^ again_ops.items()).keys()
    assert differing == readers | words
    # A training flag gets its value, and a loader its main op and saver.
    changed = {name for name, op in ops.items() if op != saved_ops.get(name)}
    flags = {"is_training"} if export.is_training else set()
    assert changed <= flags | {n for n, op in ops.items() if "InitializeTable" in op}
    assert first.model == second.model == "MetaGraphModel"
    loading = {"saved_model_assets", "asset_filepaths", "legacy_init_op"}
    assert set(before.collection_def) - loading <= set(graphs[2].collection_def)


def test_what_has_no_signature_gets_one_that_tensorflow_2_calls(converted):
    called = 0
    for export in exports():
        saved_model = converted[export.name][0]
        # TensorFlow 2 itself refuses what some older releases wrote.
        if export.source.kind != "meta_graph" or not export.name.startswith("zoo"):
            continue
        loaded = tf.saved_model.load(saved_model)
        function = loaded.signatures["serving_default"]
        specs = function.structured_input_signature[1]
        tensors = {name.partition(":")[0]: key for key, name in export.feeds.items()}
        if not set(specs) <= set(tensors):
            continue  # the interface was inferred, and has other inputs
        called += 1
        found = function(
            **{
                name: tf.constant(export.inputs[tensors[name]], spec.dtype)
                for name, spec in specs.items()
            }
        )
        by_tensor = {
            info.name: key
            for key, info in open_export(saved_model)
            .select()
            .signature_def["serving_default"]
            .outputs.items()
        }
        for key, tensor in export.fetches.items():
            if tensor in by_tensor:
                value = found[by_tensor[tensor]].numpy()
                assert_close(value, export.outputs[key], f"{export} {key}")
    assert called >= 6


@pytest.mark.parametrize(
    ("name", "path", "counts"),
    [
        (
            "zoo/savedmodel_builder_multi",
            "saved_model",
            {("train",): 1, ("serve",): 3, ("gpu", "serve"): 3},
        ),
        (
            "zoo/estimator_dnn",
            "export_all",
            {("train",): 1, ("eval",): 1, ("serve",): 4},
        ),
    ],
)
def test_all_graphs_of_a_saved_model_go_into_a_saved_model(
    tmp_path, tf115, name, path, counts
):
    export = next(e for e in exports() if e.name == name)

    report = convert(export.folder / path, tmp_path / "exported", as_text=True)

    assert (tmp_path / "exported" / "saved_model.pbtxt").is_file()
    assert report.lost == ()
    found = {tuple(sorted(k.split(","))): len(v) for k, v in report.graphs.items()}
    assert found == counts
    runs = [run for run in export.signatures if run.source.path.name == path]
    jobs, arrays = {}, {}
    for run in runs:
        settings = {
            "saved_model": tmp_path / "exported",
            "tags": list(run.source.tags),
            "signature": run.signature,
        }
        jobs[run.label] = "saved_model", settings
        for key, value in run.inputs.items():
            arrays[f"{run.label}|signature/{key}"] = value
    found = tf115(MANY, arrays, jobs)
    assert len(runs) >= 4
    for run in runs:
        for key, value in run.outputs.items():
            assert_close(found[f"{run.label}|signature/{key}"], value, run.label)


def test_what_one_graph_leaves_out_is_said(tmp_path):
    report = convert(MULTI, tmp_path / "model.meta")

    text = "\n".join(report.lost)
    assert "the graph with the tags ['train']" in text
    assert "the graph with the tags ['serve', 'gpu']" in text
    assert "model/embedding/Ftrl" in text
    assert "vocabulary.txt" in text
    assert "not converted: the graph with the tags ['train']" in str(report)
    chosen = convert(MULTI, tmp_path / "train.meta", tags=["train"])
    assert "Ftrl" not in "\n".join(chosen.lost)


def test_a_graph_in_a_keras_file_predicts_as_before(tmp_path):
    """In a process of its own, which knows the package and not the first model."""
    export = next(e for e in exports() if e.name == "zoo/mlp_adam")
    report = convert(export.source.path, tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", export.inputs["x"])
    program = (
        "import keras, numpy as np\n"
        "from keras_metagraph import load_from_meta_graph\n"
        f"model = keras.models.load_model({str(tmp_path / 'model.keras')!r})\n"
        f"y = model.predict(np.load({str(tmp_path / 'x.npy')!r}), verbose=0)\n"
        f"np.savez({str(tmp_path / 'y.npz')!r}, **y)\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)

    assert report.lost == ()
    with np.load(tmp_path / "y.npz") as found:
        for key, value in export.outputs.items():
            assert_close(found[key], value, key)
    again = convert(tmp_path / "model.keras", tmp_path / "again.meta")
    assert open_export(tmp_path / "again.meta").select().collection_def["train_op"]
    assert again.model == "MetaGraphModel"


def classifier(compiled=True):
    inputs = keras.Input((3,), name="x")
    hidden = keras.layers.Dense(4, "relu", name="hidden")(inputs)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, name="score")(hidden))
    if compiled:
        # Keras does not load H5 files that it wrote of "mse".
        model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError())
        model.fit(X, X.sum(-1, keepdims=True), epochs=3, verbose=0)
    return model


def test_a_keras_file_as_a_meta_graph_predicts_in_tensorflow_1(tmp_path, tf115):
    model = classifier()
    model.save(tmp_path / "model.keras")

    report = convert(tmp_path / "model.keras", tmp_path / "out" / "model.meta")

    assert report.lost == ()
    meta = open_export(tmp_path / "out" / "model.meta").select()
    assert set(meta.signature_def) == {"serving_default", "train", "eval"}
    signature = meta.signature_def["serving_default"]
    (given,) = [info.name for info in signature.inputs.values()]
    (wanted,) = [info.name for info in signature.outputs.values()]
    found = tf115(
        "session",
        {f"feed/{given}": X},
        {**meta_graph(tmp_path / "out" / "model.meta"), "fetches": {"y": wanted}},
    )
    assert_close(found["fetch/y"], model.predict(X, verbose=0), "y")


def test_a_keras_model_keeps_its_training_on_every_way(tmp_path):
    """.keras, SavedModel, MetaGraph, .keras, H5: and it still goes on the same."""
    model = classifier()
    model.save(tmp_path / "0.keras")
    reports = [
        convert(tmp_path / source, tmp_path / target)
        for source, target in (
            ("0.keras", "1"),
            ("1", "2.meta"),
            ("2.meta", "3.keras"),
            ("3.keras", "4.h5"),
            ("4.h5", "5.keras"),
        )
    ]

    assert set(reports[0].graphs) == {"serve", "train", "eval"}
    assert [report.model for report in reports] == ["Functional"] * 5
    back = keras.saving.load_model(tmp_path / "5.keras")
    y = X.sum(-1, keepdims=True)
    expected, found = (
        m.fit(X, y, epochs=3, shuffle=False, verbose=0).history["loss"]
        for m in (model, back)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # What the graph had besides is nothing that such a file has a place for.
    assert "signatures: eval, serving_default, train" in reports[2].lost[0]
    assert reports[0].lost == reports[1].lost == reports[3].lost == ()


def test_a_model_that_was_not_compiled_is_served(tmp_path):
    classifier(compiled=False).save(tmp_path / "model.keras")

    report = convert(tmp_path / "model.keras", tmp_path / "exported")

    assert report.graphs == {"serve": ("serving_default",)}
    tf.saved_model.load(tmp_path / "exported")


def test_which_graphs_of_a_model_are_written(tmp_path):
    classifier().save(tmp_path / "model.keras")

    report = convert(tmp_path / "model.keras", tmp_path / "out", graphs=["predict"])
    with pytest.warns(UserWarning, match="without its train graph"):
        again = convert(tmp_path / "out", tmp_path / "model.meta")

    assert report.graphs == {"serve": ("serving_default",)}
    assert report.lost == (
        "steps of the model: eval, train, and the state of the optimizer",
    )
    assert again.graphs == {"": ("serving_default",)}


def test_what_keras_cannot_compile_is_said(tmp_path):
    model = classifier()
    model.compile("adam", "mse")
    model.save(tmp_path / "model.h5")

    with pytest.warns(UserWarning, match="not compiled"):
        report = convert(tmp_path / "model.h5", tmp_path / "out")

    assert report.graphs == {"serve": ("serving_default",)}


def test_a_legacy_h5_file_as_a_saved_model(tmp_path):
    source = FIXTURES / "legacy_keras" / "keras-1.2.2" / "keras1_dense.h5"
    model = kmg.load_from_meta_graph(source, compile=False)
    x = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:]))

    convert(source, tmp_path / "exported")

    loaded = tf.saved_model.load(tmp_path / "exported", tags=["serve"])
    (found,) = loaded.signatures["serving_default"](tf.constant(x, tf.float32)).values()
    assert_close(found.numpy(), model.predict(x, verbose=0), str(source))


def test_vocabularies_that_h5_has_no_place_for_are_said(tmp_path):
    text = keras.layers.TextVectorization(output_sequence_length=2, name="words")
    text.adapt(["red blue", "blue"])
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, keras.layers.Embedding(4, 2)(text(inputs)))
    model.save(tmp_path / "m.keras")
    report = convert(tmp_path / "m.keras", tmp_path / "m.h5")
    assert [line for line in report.lost if "words" in line]
    with pytest.raises(ExportError, match="has no vocabulary"):
        convert(tmp_path / "m.h5", tmp_path / "new" / "m.meta")
    assert not os.path.exists(tmp_path / "new")


def test_weights_alone(tmp_path):
    model = classifier()
    kmg.save_meta_graph(model, tmp_path / "model")

    report = convert(tmp_path / "model", tmp_path / "out.weights.h5")

    other = classifier()
    other.load_weights(tmp_path / "out.weights.h5")
    assert_close(other.predict(X, verbose=0), model.predict(X, verbose=0), "y")
    assert report.lost[0].startswith("the model itself")
    with pytest.raises(FormatError, match="has weights, but no model"):
        convert(tmp_path / "out.weights.h5", tmp_path / "again.keras")


def test_a_graph_without_variables_has_no_checkpoint(tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        y = tf.identity(x * 2.0, "y")
        v1.saved_model.simple_save(session, str(tmp_path / "in"), {"x": x}, {"y": y})

    report = convert(tmp_path / "in", tmp_path / "out" / "model.meta")

    assert list(report.files) == ["model.meta"]
    model = kmg.load_from_meta_graph(tmp_path / "out" / "model.meta")
    found = model.meta_graph.signatures["serving_default"](x=[1.0, 2.0])
    assert found["y"].tolist() == [2.0, 4.0]


def test_files_beside_the_graph_go_along(tmp_path):
    source = tmp_path / "in"
    shutil.copytree(MULTI, source)
    (source / "assets.extra").mkdir()
    (source / "assets.extra" / "warmup").write_text("requests")
    os.symlink("/etc/hostname", source / "assets.extra" / "link")

    first = convert(source, tmp_path / "out")
    second = convert(source, tmp_path / "out.keras", tags="serve")

    assert (tmp_path / "out" / "assets.extra" / "warmup").read_text() == "requests"
    assert not os.path.lexists(tmp_path / "out" / "assets.extra" / "link")
    assert (tmp_path / "out" / "assets" / "vocabulary.txt").is_file()
    assert first.lost == ()
    assert "assets.extra/warmup" in "\n".join(second.lost)


def test_nothing_comes_from_outside_of_a_saved_model(tmp_path):
    source, outside = tmp_path / "in", tmp_path / "outside"
    shutil.copytree(MULTI, source)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (source / "assets.extra").symlink_to(outside)

    convert(source, tmp_path / "out", tags="serve")

    assert not (tmp_path / "out" / "assets.extra").exists()


class Doubled(keras.layers.Dense):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


def test_classes_of_the_user_are_given(tmp_path):
    model = keras.Sequential([keras.Input((3,)), Doubled(1)])
    model.save(tmp_path / "model.keras")

    with pytest.raises(CustomObjectError, match="Doubled"):
        convert(tmp_path / "model.keras", tmp_path / "exported")
    assert os.listdir(tmp_path) == ["model.keras"]
    convert(
        tmp_path / "model.keras",
        tmp_path / "exported",
        custom_objects={"Doubled": Doubled},
    )

    function = tf.saved_model.load(tmp_path / "exported").signatures["serving_default"]
    (found,) = function(tf.constant(X)).values()
    assert_close(found.numpy(), model.predict(X, verbose=0), "y")


class Secretive(Doubled):
    tells = True

    def get_config(self):
        if not self.tells:
            raise NotImplementedError("no config")
        return super().get_config()


@pytest.mark.parametrize("name", ["out.keras", "out.h5"])
def test_a_model_that_keras_cannot_save_is_an_error(tmp_path, monkeypatch, name):
    keras.Sequential([keras.Input((3,)), Secretive(1)]).save(tmp_path / "model.keras")
    monkeypatch.setattr(Secretive, "tells", False)

    with pytest.raises(ExportError, match="Keras cannot save this Sequential"):
        convert(
            tmp_path / "model.keras",
            tmp_path / name,
            custom_objects={"Secretive": Secretive},
        )
    assert os.listdir(tmp_path) == ["model.keras"]


def test_nothing_is_replaced_unasked(tmp_path):
    convert(ZOO / "mlp_adam", tmp_path / "model.meta")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    with pytest.raises(ExportError, match="there already"):
        convert(ZOO / "text_meta", tmp_path / "model.meta")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    convert(ZOO / "text_meta", tmp_path / "model.meta", force=True)

    kmg.load_from_meta_graph(tmp_path / "model.meta")  # sizes fit the manifest
    assert (tmp_path / "model.meta").read_bytes() != before["model.meta"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "nothing"}, FormatError, "nothing"),
        ({"destination": "model.onnx"}, FormatError, "does not say what to write"),
        ({"destination": "m.keras", "as_text": True}, FormatError, "text"),
        ({"tags": "gpu"}, SignatureError, "gpu"),
        ({"graphs": ["test"]}, ExportError, "test"),
        ({"signature": "nix"}, SignatureError, "nix"),
        ({"source": "x.h5", "tags": "serve"}, FormatError, "no tags and signatures"),
    ],
)
def test_what_does_not_fit_is_said_and_leaves_nothing(
    tmp_path, arguments, error, message
):
    h5py.File(tmp_path / "x.h5", "w").close()
    given = {"source": MULTI, "destination": "out", **arguments}
    source = tmp_path / given.pop("source")
    destination = tmp_path / given.pop("destination")

    with pytest.raises(error, match=message):
        convert(source, destination, **given)

    assert os.listdir(tmp_path) == ["x.h5"]


def test_a_signature_that_became_another_is_named(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,), name="x"), keras.layers.Dense(2, "softmax")]
    )
    signatures = {
        "serving_default": kmg.classify_signature(model),
        "predict": kmg.predict_signature(model),
    }
    path = kmg.save_saved_model(tmp_path / "1", model, signatures=signatures)

    report = convert(path, tmp_path / "model.meta")

    assert "signatures: predict" in report.lost
    assert any(
        line.startswith("signatures: serving_default, as they were")
        for line in report.lost
    )
