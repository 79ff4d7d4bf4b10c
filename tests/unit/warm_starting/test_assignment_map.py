"""The grammar is that of TensorFlow: its own functions say what each map means."""

import re

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_metagraph as kmg
from keras_metagraph.errors import (
    MissingVariableError,
    ShapeMismatchError,
    SignatureError,
)

v1 = tf.compat.v1

SHAPES = {
    "first/kernel": (3, 4),
    "first/bias": (4,),
    "encoder/dense/kernel": (4, 4),
    "encoder/dense/bias": (4,),
    "encoder/norm/gamma": (4,),
    "encoder/norm/beta": (4,),
    "encoder/norm/moving_mean": (4,),
    "encoder/norm/moving_variance": (4,),
    "head/kernel": (4, 2),
    "head/bias": (2,),
}


def stored(prefixes=("",), seed=3):
    """Values for all variables, under several scopes."""
    rng = np.random.default_rng(seed)
    return {
        prefix + name: rng.uniform(-1, 1, shape).astype("float32")
        for prefix in prefixes
        for name, shape in SHAPES.items()
    }


def by_tensorflow(call, before):
    """The variables of a graph of the model's names after TensorFlow's own function."""
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {
            name: v1.get_variable(
                name,
                initializer=before[name],
                trainable="moving" not in name,
                use_resource=True,
            )
            for name in SHAPES
        }
        call(variables)
        session.run(v1.global_variables_initializer())
        return session.run(variables)


def weights(model):
    assert [weight.path for weight in model.weights] == list(SHAPES)
    return {weight.path: weight.numpy() for weight in model.weights}


MAPS = {
    "root": {"/": "/"},
    "into a scope": {"old/": "/"},
    "scope to scope": {"old/encoder/": "encoder/"},
    "scope to scope, inside": {"old/encoder/dense/": "encoder/norm/"},
    "root to scope": {"/": "encoder/"},
    "name to name": {"old/head/kernel": "head/kernel"},
    "several": {"old/encoder/": "encoder/", "first/bias": "first/bias"},
    "name before scope": {"old/": "/", "other": "head/bias"},
    "one tensor, two variables": {
        "first/bias": "first/bias",
        "encoder/dense/bias": "encoder/norm/beta",
    },
}


@pytest.mark.parametrize("key", MAPS)
def test_maps_of_names_are_those_of_init_from_checkpoint(key, model, checkpoint):
    values = stored(("", "old/"))
    if key == "scope to scope, inside":
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            values[f"old/encoder/dense/{name}"] = values[f"old/encoder/norm/{name}"] + 1
    if key == "root to scope":
        for name in [n for n in SHAPES if n.startswith("encoder/")]:
            values[name.removeprefix("encoder/")] = values[name] + 2
    values["other"] = np.float32([7, 8])
    prefix = checkpoint(values)
    before = weights(model)
    expected = by_tensorflow(
        lambda _: v1.train.init_from_checkpoint(prefix, MAPS[key]), before
    )

    report = kmg.warm_start(model, prefix, MAPS[key])

    after = weights(model)
    for name in SHAPES:
        np.testing.assert_array_equal(after[name], expected[name], err_msg=name)
    changed = {n for n in SHAPES if not np.array_equal(expected[n], before[n])}
    assert {match.name for match in report.matched} == changed
    assert set(report.untouched) == set(SHAPES) - changed


def test_variables_can_be_given_themselves(model, checkpoint):
    prefix = checkpoint(stored())
    expected = by_tensorflow(
        lambda v: v1.train.init_from_checkpoint(
            prefix, {"head/bias": v["head/bias"], "first/bias": v["first/bias"]}
        ),
        weights(model),
    )
    bias = model.get_layer("head").bias

    kmg.warm_start(
        model,
        prefix,
        {"head/bias": bias.value, "first/bias": [model.get_layer("first").bias]},
    )

    after = weights(model)
    for name in SHAPES:
        np.testing.assert_array_equal(after[name], expected[name], err_msg=name)


def test_pairs_let_one_tensor_go_to_several_variables(model, checkpoint):
    prefix = checkpoint(stored())
    pairs = [("first/bias", "first/bias"), ("first/bias", "encoder/dense/bias")]
    expected = by_tensorflow(
        lambda _: v1.train.init_from_checkpoint(prefix, pairs), weights(model)
    )

    kmg.warm_start(model, prefix, pairs)

    after = weights(model)
    for name in SHAPES:
        np.testing.assert_array_equal(after[name], expected[name], err_msg=name)


SELECTIONS = {
    "all trainable": ".*",
    "an expression": "encoder/.*kernel",
    "beginnings": ["encoder/norm/moving", "first"],
    "alternatives": "(first|head)/bias",
}


@pytest.mark.parametrize("key", SELECTIONS)
def test_selections_are_those_of_warm_start(key, model, checkpoint):
    prefix = checkpoint(stored())
    before = weights(model)
    expected = by_tensorflow(
        lambda _: v1.train.warm_start(prefix, SELECTIONS[key]), before
    )

    kmg.warm_start(model, prefix, SELECTIONS[key])

    after = weights(model)
    for name in SHAPES:
        np.testing.assert_array_equal(after[name], expected[name], err_msg=name)


def test_variables_can_be_selected_themselves(model, checkpoint):
    prefix = checkpoint(stored())
    expected = by_tensorflow(
        lambda v: v1.train.warm_start(prefix, [v["head/bias"], v["first/kernel"]]),
        weights(model),
    )

    kmg.warm_start(
        model, prefix, [model.get_layer("head").bias, model.get_layer("first").kernel]
    )

    after = weights(model)
    for name in SHAPES:
        np.testing.assert_array_equal(after[name], expected[name], err_msg=name)


@pytest.mark.parametrize(
    "pattern", [r"^tower_\d/(.*)", re.compile("tower_1/")], ids=["string", "compiled"]
)
def test_expressions_rename_what_they_match(pattern, model, checkpoint):
    values = stored(("tower_1/",))
    values |= {f"{name}/Adam": value for name, value in values.items()}
    replacement = r"\1" if isinstance(pattern, str) else ""

    report = kmg.warm_start(model, checkpoint(values), {pattern: replacement})

    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, values[f"tower_1/{name}"])
    assert all(name.endswith("/Adam") for name in report.unused)


def test_a_layer_or_an_inner_model_is_a_scope(model, checkpoint):
    values = stored(("bert/",))
    prefix = checkpoint(values)
    before = weights(model)

    kmg.warm_start(
        model,
        prefix,
        {
            "bert/encoder/": model.get_layer("encoder"),
            "bert/first/": model.get_layer("first"),
        },
    )

    for name, value in weights(model).items():
        wanted = before[name] if name.startswith("head") else values[f"bert/{name}"]
        np.testing.assert_array_equal(value, wanted, err_msg=name)


def test_a_name_goes_before_a_scope_and_that_before_an_expression(model, checkpoint):
    values = stored(("a/", "b/")) | {"c": np.float32([5, 6])}

    kmg.warm_start(
        model,
        checkpoint(values),
        {"c": "head/bias", "^a/": "", "b/encoder/": "encoder/"},
    )

    after = weights(model)
    np.testing.assert_array_equal(after["head/bias"], [5, 6])
    np.testing.assert_array_equal(after["first/bias"], values["a/first/bias"])
    np.testing.assert_array_equal(
        after["encoder/norm/beta"], values["b/encoder/norm/beta"]
    )


def test_all_that_cannot_be_meant_is_said_at_once(model, checkpoint):
    prefix = checkpoint(stored(("", "a/", "b/")))
    other = layers.Dense(2, name="other")
    before = weights(model)

    with pytest.raises(SignatureError) as caught:
        kmg.warm_start(
            model,
            prefix,
            [
                ("first/kernel", "first/kernl"),
                ("nothing/", "scope/"),
                ("first/bias", "encoder/"),
                ("encoder/", "head/bias"),
                ("^zzz", "x"),
                ("^((", "x"),
                (r"^a/(first)", r"\2"),
                ("first/", other),
                ("a/head/bias", "head/bias"),
                ("b/head/bias", "head/bias"),
                ("head/kernel", 3),
            ],
        )

    text = "\n".join(caught.value.findings)
    assert (
        "'first/kernl': the model has no such variable; nearest: first/kernel" in text
    )
    assert "'scope/': the model has no such scope" in text
    assert "'first/bias' must end with '/', as a scope does" in text
    assert "'encoder/' is a scope, and 'head/bias' is none" in text
    assert "'^zzz' → 'x' leads from no tensor of the file" in text
    assert "'^((' → 'x': missing )" in text
    assert r"'^a/(first)' → '\\2': invalid group reference" in text
    assert "'other' is no layer of the model" in text
    assert "head/bias: from 'a/head/bias' by name, and from 'b/head/bias'" in text
    assert "3 is no variable of the model" in text
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_what_a_scope_lacks_is_missing_as_in_tensorflow(model, checkpoint):
    values = stored(("old/",))
    del values["old/encoder/norm/beta"]
    prefix = checkpoint(values)
    with pytest.raises(ValueError, match="old/encoder/norm/beta"):
        by_tensorflow(
            lambda _: v1.train.init_from_checkpoint(prefix, {"old/": "/"}),
            weights(model),
        )

    with pytest.raises(MissingVariableError) as caught:
        kmg.warm_start(model, prefix, {"old/": "/"})

    (finding,) = caught.value.findings
    assert finding.startswith("encoder/norm/beta (4,), looked for as 'old/encoder/norm")


def test_other_shapes_and_types_are_conflicts(model, checkpoint):
    values = stored()
    values["head/kernel"] = np.zeros((4, 7), "float32")
    values["head/bias"] = np.zeros(2, "float64")

    with pytest.raises(ShapeMismatchError) as caught:
        kmg.warm_start(model, checkpoint(values), {"/": "/"})

    assert caught.value.findings == (
        "head/kernel: float32 (4, 2) in the model, float32 (4, 7) in the file, as "
        "'head/kernel'",
        "head/bias: float32 (2,) in the model, float64 (2,) in the file, as "
        "'head/bias'",
    )


def test_selections_that_match_nothing(model, checkpoint):
    prefix = checkpoint(stored())

    for selection in ("nothing", ["first", "zzz"], [tf.Variable(1.0, name="alien")]):
        with pytest.raises(SignatureError):
            kmg.warm_start(model, prefix, selection)
