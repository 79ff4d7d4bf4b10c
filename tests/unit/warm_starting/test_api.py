"""Every kind of file; all or nothing; and a report that says what happened."""

import json
import warnings

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import (
    CheckpointError,
    FormatError,
    MissingVariableError,
    ShapeMismatchError,
    SignatureError,
    UntrustedContentError,
)

v1 = tf.compat.v1


def values_of(model, optimizer=False):
    """Values by Keras path."""
    variables = [*model.weights, *(model.optimizer.variables if optimizer else ())]
    return {v.path: v.numpy() for v in variables}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def save(kind, model, path):
    """Saves a model; returns the path to read."""
    if kind == "checkpoint of objects":
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        return checkpoint.save(str(path / "ckpt"))
    if kind == "model as root":
        return tf.train.Checkpoint(model).write(str(path / "ckpt"))
    if kind.startswith("own"):
        prefix = kmg.save_meta_graph(model, path / "m", 3)
        return {"own directory": path, "own meta": prefix + ".meta"}.get(kind, prefix)
    if kind == "SavedModel":
        model.export(str(path / "sm"), verbose=False)
        return path / "sm"
    if kind == "h5":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(path / "m.h5")
        return path / "m.h5"
    if kind == "keras":
        model.save(path / "m.keras")
        return path / "m.keras"
    model.save_weights(path / "m.weights.h5")
    return path / "m.weights.h5"


KINDS = (
    "checkpoint of objects",
    "model as root",
    "own",
    "own directory",
    "own meta",
    "keras",
    "weights",
    "h5",
)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("kind", [*KINDS, "SavedModel"])
def test_weights_come_from_every_kind_of_file(kind, make_model, tmp_path):
    source, model = make_model("source", seed=2), make_model()
    path = save(kind, source, tmp_path)

    report = kmg.warm_start(model, path)

    assert_equal(values_of(model), values_of(source))
    assert len(report.matched) == len(model.weights)
    assert report.assigned
    assert not report.missing


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer_comes_along(kind, make_model, tmp_path):
    source, model = make_model(seed=2), make_model()
    source.optimizer.iterations.assign(7)
    path = save(kind, source, tmp_path)

    kmg.warm_start(model, path, optimizer=True)

    assert_equal(values_of(model), values_of(source))
    state = zip(model.optimizer.variables, source.optimizer.variables, strict=True)
    for variable, wanted in state:  # Their names are numbered.
        np.testing.assert_array_equal(variable.numpy(), wanted.numpy())


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("kind", [*KINDS, "SavedModel"])
def test_a_new_head_keeps_its_values(kind, make_model, tmp_path):
    source, model = make_model("source", seed=2), make_model(head=5)
    path = save(kind, source, tmp_path)
    before = values_of(model)

    kmg.warm_start(model, path, ["first", "encoder"])

    expected = values_of(source) | {k: v for k, v in before.items() if "head" in k}
    assert_equal(values_of(model), expected)


def numbered(seed):
    """A model whose layers are numbered through the process."""
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3), layers.Dense(3), layers.Dense(3)]
    )
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


@pytest.mark.parametrize("kind", ["model as root", "keras", "weights"])
def test_numbered_names_do_not_mislead_where_the_structure_is_the_same(kind, tmp_path):
    keras.backend.clear_session()
    source = numbered(1)
    path = save(kind, source, tmp_path)
    keras.backend.clear_session()
    layers.Dense(1)  # Takes the number 0.
    model = numbered(2)

    report = kmg.warm_start(model, path)

    for weight, wanted in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), wanted.numpy())
    assert {match.how for match in report.matched} == {"structure of the file"}


def test_nothing_is_found_by_its_place(tmp_path):
    keras.backend.clear_session()
    source = numbered(1)
    prefix = kmg.save_meta_graph(source, tmp_path / "m", 0, graphs=["predict"])
    model = keras.Sequential(
        [keras.Input((3,)), *(layers.Dense(3, name=f"other_{i}") for i in range(3))]
    )

    with pytest.raises(MissingVariableError) as caught:
        kmg.warm_start(model, prefix)

    assert len(caught.value.findings) == 6


class Subclassed(keras.Model):
    """A model that keeps its layers in attributes, a list and a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Dense(3, name="stem")
        self.blocks = [layers.Dense(3, name=f"block_{i}") for i in range(2)]
        self.heads = {"a": layers.Dense(1, name="a")}
        self.scale = self.add_weight(shape=(3,), name="scale")

    def call(self, inputs):
        hidden = self.stem(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        return self.heads["a"](hidden * self.scale)


class Plain(keras.Model):
    """A model that keeps its layers in attributes only."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Dense(3, name="stem")
        self.head = layers.Dense(3, name="head")

    def call(self, inputs):
        return self.head(self.stem(inputs))


@pytest.mark.parametrize(
    ("kind", "made_by"),
    [
        ("weights", Subclassed),
        ("names", Subclassed),
        # TensorFlow's checkpoints leave out layers in lists of Keras 3.
        ("model as root", Plain),
    ],
)
def test_subclassed_models(kind, made_by, checkpoint, tmp_path):
    source, model = made_by(name="one"), made_by(name="two")
    for made in (source, model):
        made(np.zeros((1, 3)))
    if kind == "names":
        path = checkpoint({w.path.partition("/")[2]: w.numpy() for w in source.weights})
    else:
        path = save(kind, source, tmp_path)

    kmg.warm_start(model, path)

    for weight, wanted in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), wanted.numpy())


@pytest.mark.parametrize("scope", ["", "net/", "other/"])
@pytest.mark.parametrize("write_version", [1, 2])
def test_names_with_and_without_a_scope(
    scope, write_version, make_model, model, checkpoint
):
    values = values_of(make_model(seed=5))
    stored = {f"{scope}{name}": value for name, value in values.items()}
    stored["global_step"] = np.int64(4)

    kmg.warm_start(model, checkpoint(stored, write_version=write_version))

    assert_equal(values_of(model), values)


def test_a_dry_run_prints_all_and_changes_nothing(
    make_model, model, checkpoint, capsys
):
    values = values_of(make_model(seed=5))
    values["head/kernel"] = np.zeros((4, 9), "float32")
    values["lonely"] = np.float32(1)
    del values["first/bias"]
    before = values_of(model, True)

    report = kmg.warm_start(model, checkpoint(values), optimizer=True, dry_run=True)

    assert_equal(values_of(model, True), before)
    printed = capsys.readouterr().out
    assert f"{len(report.matched)} variables would be assigned" in printed
    for text in ("Conflicts", "Missing in the file", "Unused tensors", "lonely"):
        assert text in printed
    assert report.missing[0].startswith("first/bias (4,)")
    assert report.conflicts[0].startswith("head/kernel: float32 (4, 2) in the model")
    assert report.unused == ("head/kernel", "lonely")
    assert not report.assigned
    assert json.loads(json.dumps(report.to_dict()))["path"] == report.path


def test_all_findings_are_in_one_error_and_nothing_is_assigned(
    make_model, model, checkpoint
):
    values = values_of(make_model(seed=5))
    values["head/kernel"] = np.zeros((4, 9), "float32")
    del values["first/bias"]
    prefix = checkpoint(values)
    before = values_of(model)

    with pytest.raises(ShapeMismatchError) as caught:
        kmg.warm_start(model, prefix)

    assert [line.partition(" ")[0] for line in caught.value.findings] == [
        "head/kernel:",
        "first/bias",
    ]
    assert_equal(values_of(model), before)


def test_mismatches_can_be_skipped_and_are_warned_of(make_model, model, checkpoint):
    values = values_of(make_model(seed=5))
    values["head/kernel"] = np.zeros((4, 9), "float32")
    del values["first/bias"]
    before = values_of(model)

    with pytest.warns(UserWarning, match="2 variables keep their values") as caught:
        kmg.warm_start(model, checkpoint(values), skip_mismatch=True)

    kept = {name: before[name] for name in ("head/kernel", "first/bias")}
    assert_equal(values_of(model), dict.fromkeys(before) | values | kept)
    assert caught[0].filename == __file__


def test_a_file_with_nothing_for_the_model(model, checkpoint):
    prefix = checkpoint({"x": np.zeros(3, "float32")})

    with pytest.raises(CheckpointError, match="has nothing for the model"):
        kmg.warm_start(model, prefix, skip_mismatch=True)


def test_two_variables_do_not_get_one_tensor_by_chance(checkpoint):
    inputs = keras.Input((2,))
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="net")], name="d")
    model = keras.Model(inputs, layers.Dense(2, name="d2")(inner(inputs)), name="net")
    names = [weight.path for weight in model.weights]
    stored = {name: np.zeros((2, 2), "float32") for name in names if "kernel" in name}

    with pytest.raises((SignatureError, MissingVariableError)):
        kmg.warm_start(model, checkpoint(stored))


@pytest.mark.parametrize("kind", ["keras", "weights"])
def test_layers_of_another_number_of_variables_are_not_the_same(kind, tmp_path):
    """Without its scale, batch normalization has three variables of one shape."""

    def normalizing(scale):
        norm = layers.BatchNormalization(scale=scale, name="norm")
        return keras.Sequential([keras.Input((3,)), norm], name="m")

    path = save(kind, normalizing(False), tmp_path)

    with pytest.raises(MissingVariableError) as caught:
        kmg.warm_start(normalizing(True), path)

    assert len(caught.value.findings) == 4


def test_variables_without_values_yet(tmp_path, checkpoint):
    with pytest.raises(SignatureError, match="build"):
        kmg.warm_start(keras.Sequential([layers.Dense(1)]), checkpoint({"x": 1.0}))


@pytest.mark.parametrize(
    "name", ["nothing", "nothing.keras", "nothing.weights.h5", "nothing.h5", "."]
)
def test_paths_that_lead_nowhere(name, model, tmp_path):
    with pytest.raises((CheckpointError, FormatError)):
        kmg.warm_start(model, tmp_path / name)


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5"])
def test_files_that_are_no_files_of_keras(name, model, tmp_path):
    (tmp_path / name).write_bytes(b"something else" * 10)

    with pytest.raises(FormatError):
        kmg.warm_start(model, tmp_path / name)


def test_data_in_other_files_is_not_read(model, tmp_path):
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "m.weights.h5", "a") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        group.create_dataset(
            "0", (3, 4), "float32", external=[(str(tmp_path / "secret"), 0, 48)]
        )

    with pytest.raises(UntrustedContentError, match="layers/dense/vars/0"):
        kmg.warm_start(model, tmp_path / "m.weights.h5")


def test_normalization_computes_with_its_new_statistics(tmp_path):
    def normalizing():
        return keras.Sequential([keras.Input((2,)), layers.Normalization(name="n")])

    source, model = normalizing(), normalizing()
    data = np.random.default_rng(0).normal(3, 2, (50, 2)).astype("float32")
    source.layers[0].adapt(data)
    source.save_weights(tmp_path / "m.weights.h5")

    kmg.warm_start(model, tmp_path / "m.weights.h5")

    np.testing.assert_array_equal(model(data), source(data))


def test_bfloat16_is_kept(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    source = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")])
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")])
    source.save_weights(tmp_path / "m.weights.h5")

    kmg.warm_start(model, tmp_path / "m.weights.h5")

    for weight, wanted in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), wanted.numpy())


def test_moving_averages_by_name(make_model, model, checkpoint):
    values = values_of(make_model(seed=5))
    shadows = {
        f"train/{v.path}/ExponentialMovingAverage": v.numpy() + 1
        for v in model.trainable_variables
    }
    trainable = {v.path for v in model.trainable_variables}

    report = kmg.warm_start(model, checkpoint(values | shadows), ema=True)

    for name, value in values_of(model).items():
        shadow = f"train/{name}/ExponentialMovingAverage"
        wanted = shadows[shadow] if name in trainable else values[name]
        np.testing.assert_array_equal(value, wanted, err_msg=name)
    assert all("averaged" in m.how for m in report.matched if m.name in trainable)


def test_missing_moving_averages_are_named(make_model, model, checkpoint):
    prefix = checkpoint(values_of(make_model(seed=5)))

    with pytest.raises(MissingVariableError) as caught:
        kmg.warm_start(model, prefix, ema=True)

    assert len(caught.value.findings) == len(model.trainable_variables)


def test_moving_averages_of_keras(tmp_path):
    def averaging():
        model = keras.Sequential(
            [keras.Input((3,)), layers.Dense(2, name="d")], name="m"
        )
        model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    source, model = averaging(), averaging()
    for _ in range(3):
        source.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))
    path = save("checkpoint of objects", source, tmp_path)

    kmg.warm_start(model, path, ema=True)

    averages = [v for v in source.optimizer.variables if v.path.endswith("_average")]
    for weight, average in zip(model.weights, averages, strict=True):
        np.testing.assert_array_equal(weight.numpy(), average.numpy())


def test_parts_of_a_variable_on_either_side(model, checkpoint, make_model):
    values = values_of(make_model(seed=5))
    kernel = values.pop("first/kernel")
    values |= {"first/kernel/part_0": kernel[:2], "first/kernel/part_1": kernel[2:]}
    whole = np.concatenate(
        [values.pop("encoder/norm/gamma"), values.pop("encoder/norm/beta")]
    )
    values["both"] = whole
    norm = model.get_layer("encoder").get_layer("norm")

    kmg.warm_start(
        model,
        checkpoint(values),
        {
            "first/": "first/",
            "head/": "head/",
            "both": [norm.gamma, norm.beta],
        },
    )

    after = values_of(model)
    np.testing.assert_array_equal(after["first/kernel"], kernel)
    np.testing.assert_array_equal(after["encoder/norm/gamma"], whole[:4])
    np.testing.assert_array_equal(after["encoder/norm/beta"], whole[4:])


def test_parts_that_do_not_make_up_the_whole(model, checkpoint):
    norm = model.get_layer("encoder").get_layer("norm")
    prefix = checkpoint({"both": np.zeros(9, "float32")})

    with pytest.raises(ShapeMismatchError) as caught:
        kmg.warm_start(model, prefix, {"both": [norm.gamma, norm.beta]})

    assert len(caught.value.findings) == 2
