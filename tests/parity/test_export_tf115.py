"""Real TensorFlow 1.15 imports what is exported, predicts the same and trains on."""

import json
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph.export.specs import watch_data
from keras_metagraph.saving import export_meta_graph, save_meta_graph, variable_values
from parity.keras_models import APPLICATIONS, BATCH, MODELS, floats, is_unused

STEPS = 20


def tensors(structure):
    """What Keras takes for a structure of arrays; it takes no arrays of texts."""
    return tf.nest.map_structure(tf.constant, structure)


def description(prefix):
    """What the file says of its model."""
    meta_graph_def = tf.compat.v1.MetaGraphDef()
    with open(f"{prefix}.meta", "rb") as file:
        meta_graph_def.ParseFromString(file.read())
    collection = meta_graph_def.collection_def["keras_metagraph"]
    return json.loads(collection.bytes_list.value[0])


def input_names(structure):
    """Names of the inputs in the order in which a structure is flattened."""
    parts = structure
    if isinstance(structure, dict):
        if structure.keys() == {"name", "shape", "dtype"}:
            return [structure["name"].removesuffix(":0")]
        parts = [structure[key] for key in sorted(structure)]
    return [name for part in parts for name in input_names(part)]


def keyed(model, fields, x, y, weights):
    """Data of a step by the keys of its signature."""
    names = input_names(fields["input_structure"])
    data = dict(zip(names, tf.nest.flatten(x), strict=True))
    if isinstance(y, dict):
        data.update(y)
    elif isinstance(y, list):
        data.update(zip(model.output_names, y, strict=True))
    elif y is not None:
        data["labels"] = y
    if weights is not None:
        data["sample_weight"] = weights
    return data


def stored(array):
    """An array as the other Python reads it: texts as bytes."""
    return array.astype("S") if array.dtype.kind in "OU" else array


@pytest.mark.parametrize("name", MODELS)
def test_training_goes_on(name, tf115, tmp_path):
    model, draw = MODELS[name]()
    rng = np.random.default_rng(3)
    batches = [draw(rng) for _ in range(STEPS)]
    watch_data(model)
    x, y, weights = tensors(batches[0][0]), tensors(batches[0][1]), batches[0][2]
    model.fit(x, y, batch_size=BATCH, sample_weight=weights, verbose=0)
    prefix = save_meta_graph(model, tmp_path / "m", model.optimizer.iterations)

    fields = description(prefix)
    rows = [keyed(model, fields, *batch) for batch in batches]
    fed = {f"train/{key}": np.stack([stored(r[key]) for r in rows]) for key in rows[0]}
    for key in fields["graphs"]["predict"]["inputs"]:
        fed[f"serving_default/{key}"] = stored(rows[0][key])
    found = tf115("continue_training", fed, {"checkpoint": prefix})

    # Once, as there: some layers of Keras draw random numbers when they predict too.
    predicted = model.predict(x, verbose=0)
    keys = fields["graphs"]["predict"]["outputs"]
    keys = model.output_names if isinstance(predicted, list) else keys
    for key, expected in zip(keys, tf.nest.flatten(predicted), strict=True):
        output = found[f"serving_default/{key}"]
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    losses = []
    for x, y, weights in batches:
        model.reset_metrics()
        logs = model.train_on_batch(
            tensors(x), tensors(y), sample_weight=weights, return_dict=True
        )
        losses.append(logs["loss"])
    np.testing.assert_allclose(found["train/loss"], losses, rtol=1e-6)
    for variable, value in variable_values(model).items():
        if is_unused(variable, model.optimizer):
            continue
        np.testing.assert_allclose(
            found[f"after/{variable}"], value, rtol=1e-4, atol=1e-5, err_msg=variable
        )


@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_predict(name, tf115, tmp_path):
    size = APPLICATIONS[name]
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=5
    )
    prefix = save_meta_graph(model, tmp_path / "m")
    (key,) = description(prefix)["graphs"]["predict"]["inputs"]
    (output,) = description(prefix)["graphs"]["predict"]["outputs"]
    images = np.random.default_rng(3).random((2, size, size, 3), "float32")
    fed = {f"serving_default/{key}": images}
    found = tf115("continue_training", fed, {"checkpoint": prefix})
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(
        found[f"serving_default/{output}"], expected, rtol=1e-5, atol=1e-5
    )


def simple():
    model, draw = MODELS["mlp"]()
    x, y, _ = draw(np.random.default_rng(3))
    model.fit(x, y, verbose=0)
    return model, x, y


@pytest.mark.parametrize(
    "arguments",
    [{"as_text": True}, {"strip_default_attrs": True}, {"clear_devices": True}],
)
def test_every_form_of_the_file_is_read(arguments, tf115, tmp_path):
    model, x, y = simple()
    prefix = save_meta_graph(model, tmp_path / "m", **arguments)
    script = """
        import tensorflow.compat.v1 as tf

        def main(arrays, args):
            with tf.Graph().as_default() as graph, tf.Session() as session:
                saver = tf.train.import_meta_graph(args["prefix"] + ".meta")
                saver.restore(session, args["prefix"])
                fetches = ["dense_1/Softmax:0", "train/loss:0"]
                feeds = {"input_layer:0": arrays["x"], "labels:0": arrays["y"]}
                values = session.run(fetches + graph.get_collection("train_op"), feeds)
                return {"predicted": values[0], "loss": values[1]}
    """
    found = tf115(textwrap.dedent(script), {"x": x, "y": y}, {"prefix": prefix})
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(found["predicted"], expected, rtol=1e-5, atol=1e-6)
    model.reset_metrics()
    loss = model.train_on_batch(x, y, return_dict=True)["loss"]
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-6)


def test_an_inference_graph_is_extended_to_training(tf115, tmp_path):
    model = keras.Sequential(
        [keras.Input((3,), name="x"), layers.Dense(4, name="body")]
    )
    prefix = save_meta_graph(
        model,
        tmp_path / "m",
        collections={"features": ["body/BiasAdd:0"], "hparams": [b'{"rate": 0.05}']},
    )
    script = """
        import json
        import tensorflow.compat.v1 as tf

        def main(arrays, args):
            with tf.Graph().as_default() as graph, tf.Session() as session:
                saver = tf.train.import_meta_graph(args["prefix"] + ".meta")
                saver.restore(session, args["prefix"])
                features, = graph.get_collection("features")
                rate = json.loads(graph.get_collection("hparams")[0])["rate"]
                logits = tf.layers.dense(tf.stop_gradient(features) + features, 2)
                loss = tf.reduce_mean(tf.square(logits))
                before = graph.get_collection("trainable_variables")
                step = tf.train.GradientDescentOptimizer(rate).minimize(loss)
                session.run([v.initializer for v in tf.global_variables()[2:]])
                losses = [
                    session.run([loss, step], {"x:0": arrays["x"]})[0]
                    for _ in range(20)
                ]
                names = [v.op.name for v in tf.trainable_variables()]
                return {"losses": losses, "names": names}
    """
    x = floats(np.random.default_rng(3), 3)
    found = tf115(textwrap.dedent(script), {"x": x}, {"prefix": prefix})
    assert found["names"].tolist() == [
        "body/kernel",
        "body/bias",
        "dense/kernel",
        "dense/bias",
    ]
    assert found["losses"][-1] < 0.5 * found["losses"][0]


def test_one_scope_is_imported_into_another_graph(tf115, tmp_path):
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, name="dense")], name="encoder"
    )
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(1)(inner(x)))
    prefix = save_meta_graph(model, tmp_path / "m", export_scope="encoder")
    script = """
        import tensorflow.compat.v1 as tf

        def main(arrays, args):
            with tf.Graph().as_default(), tf.Session() as session:
                x = tf.constant(arrays["x"])
                saver = tf.train.import_meta_graph(
                    args["prefix"] + ".meta",
                    import_scope="mine",
                    input_map={"$unbound_inputs_x": x},
                )
                saver.restore(session, args["prefix"])
                return {"y": session.run("mine/dense/BiasAdd:0")}
    """
    data = floats(np.random.default_rng(3), 3)
    found = tf115(textwrap.dedent(script), {"x": data}, {"prefix": prefix})
    np.testing.assert_allclose(found["y"], inner(data), rtol=1e-5, atol=1e-6)


def test_a_graph_without_checkpoint_starts_from_its_initializers(tf115, tmp_path):
    model, x, y = simple()
    export_meta_graph(model, tmp_path / "m.meta")
    repeated = {"train/input_layer": np.stack([x] * 40), "train/labels": [y] * 40}
    args = {"checkpoint": str(tmp_path / "m"), "initialize": True}
    losses = tf115("continue_training", repeated, args)["train/loss"]
    assert losses[-5:].mean() < losses[:5].mean()


def test_evaluation_is_that_of_keras(tf115, tmp_path):
    model, x, y = simple()
    prefix = save_meta_graph(model, tmp_path / "m")
    fed = {"eval/input_layer": x, "eval/labels": y}
    found = tf115("continue_training", fed, {"checkpoint": prefix})
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["eval/loss"], expected["loss"], rtol=1e-6)
    np.testing.assert_allclose(found["eval/accuracy"], expected["accuracy"], rtol=1e-6)
