"""Values come from checkpoints of every kind, and the model keeps its own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_metagraph.errors import (
    CheckpointError,
    MissingVariableError,
    ShapeMismatchError,
)
from keras_metagraph.export.checkpoint_values import checkpoint_values
from keras_metagraph.export.names import named_variables
from keras_metagraph.saving import save_meta_graph, variable_values


def make(units=4, names=("a", "b")):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(units, name=names[0]),
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name=names[1]),
        ]
    )
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng()
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(9 * rng.random(variable.shape) + 1)
    return model


def variables_of(model):
    return [v for v in named_variables(model) if v.role != "metric"]


def arrays(values):
    return {name: np.asarray(value) for name, value in values.items()}


def saved(kind, model, path):
    """Saves a model; returns the path to read."""
    if kind == "object":
        root = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        return root.save(str(path / "ckpt"))
    if kind == "object, model as root":
        return tf.train.Checkpoint(model).write(str(path / "ckpt"))
    if kind == "object, other name":
        root = tf.train.Checkpoint(step=tf.Variable(1), net=model)
        return root.write(str(path / "ckpt"))
    if kind == "name":
        return save_meta_graph(model, path / "m", 3, graphs=["train"])
    if kind == "directory":
        save_meta_graph(model, path / "m", 3, graphs=["train"])
        return path
    if kind == "index":
        return save_meta_graph(model, path / "m", 3, graphs=["train"]) + ".index"
    file = path / {"keras": "m.keras", "weights": "m.weights.h5"}[kind]
    (model.save if kind == "keras" else model.save_weights)(file)
    return file


KINDS = (
    "object",
    "object, model as root",
    "object, other name",
    "name",
    "directory",
    "index",
    "keras",
    "weights",
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_values_and_leaves_the_model_alone(kind, tmp_path):
    source, model = make(), make()
    path = saved(kind, source, tmp_path)
    before = arrays(variable_values(model))
    found = arrays(checkpoint_values(model, variables_of(model), path))
    expected = arrays(variable_values(source))
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for name, value in arrays(variable_values(model)).items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)


@pytest.mark.parametrize("kind", ["object", "keras", "name"])
def test_powers_follow_from_the_steps_in_the_checkpoint(kind, tmp_path):
    source, model = make(), make()
    source.optimizer.iterations.assign(4)
    path = saved(kind, source, tmp_path)
    model.optimizer.iterations.assign(100)
    found = checkpoint_values(model, variables_of(model), path)
    assert float(found["beta1_power"]) == pytest.approx(0.9**5)


def test_old_h5_files_have_no_optimizer(tmp_path):
    source, model = make(), make()
    source.save_weights(tmp_path / "m.weights.h5")
    path = tmp_path / "old.h5"
    write_old_h5(source, path)
    found = arrays(checkpoint_values(model, variables_of(model), path))
    expected, own = arrays(variable_values(source)), arrays(variable_values(model))
    for variable in variables_of(model):
        wanted = expected if variable.role == "weight" else own
        np.testing.assert_array_equal(found[variable.name], wanted[variable.name])


def write_old_h5(model, path):
    """Writes weights as Keras 1 and 2 did."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        file.attrs["backend"] = b"tensorflow"
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{w.name}:0" for w in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()


def test_missing_variables_are_all_listed_with_their_nearest_names(tmp_path):
    prefix = saved("name", make(names=("x", "y")), tmp_path)
    model = make()
    with pytest.raises(MissingVariableError) as info:
        checkpoint_values(model, variables_of(model), prefix)
    assert len(info.value.findings) >= 4
    assert info.value.findings[0].startswith("a/kernel (3, 4); nearest: ")
    assert "x/kernel" in info.value.findings[0]


def test_other_shapes_are_all_listed(tmp_path):
    prefix = saved("name", make(units=7), tmp_path)
    model = make()
    with pytest.raises(ShapeMismatchError) as info:
        checkpoint_values(model, variables_of(model)[:6], prefix)
    text = str(info.value)
    for name in ("a/kernel", "a/bias", "norm/gamma", "norm/moving_mean"):
        assert name in text
    assert "float32 (3, 7) in the checkpoint" in text


@pytest.mark.parametrize("kind", ["weights", "keras", "old"])
def test_files_of_another_model_say_where_they_differ(kind, tmp_path):
    other = make(units=7)
    if kind == "old":
        path = tmp_path / "old.h5"
        write_old_h5(other, path)
    else:
        path = saved(kind, other, tmp_path)
    model = make()
    before = arrays(variable_values(model))
    with pytest.raises(ShapeMismatchError) as info:
        checkpoint_values(model, variables_of(model), path)
    assert any("(3, 4): (3, 7) in the file" in line for line in info.value.findings)
    assert any("(4, 2): (7, 2) in the file" in line for line in info.value.findings)
    for name, value in arrays(variable_values(model)).items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)


def test_a_checkpoint_without_optimizer_keeps_that_of_the_model(tmp_path):
    source, model = make(), make()
    source.compile(None, None)
    prefix = save_meta_graph(source, tmp_path / "m", graphs=("predict",))
    with pytest.warns(UserWarning, match="no state of the optimizer"):
        found = checkpoint_values(model, variables_of(model), prefix)
    step = model.optimizer.iterations
    assert int(found["global_step"]) == int(step.numpy())


def test_paths_that_lead_nowhere(tmp_path):
    model = make()
    for path in (tmp_path / "no.weights.h5", tmp_path / "no", tmp_path):
        with pytest.raises(CheckpointError):
            checkpoint_values(model, variables_of(model), path)


def test_another_class_of_model_is_matched_by_the_names_of_variables(tmp_path):
    source = make()

    class Holder(tf.Module):
        """What an older Keras would have saved: other attributes, the same names."""

        def __init__(self):
            super().__init__()
            self.held = [tf.Variable(w.numpy(), name=w.path) for w in source.weights]

    prefix = tf.train.Checkpoint(net=Holder()).write(str(tmp_path / "c"))
    model = make()
    weights = [v for v in variables_of(model) if v.role == "weight"]
    found = arrays(checkpoint_values(model, weights, prefix))
    for weight, own in zip(source.weights, weights, strict=True):
        np.testing.assert_array_equal(found[own.name], weight.numpy())
