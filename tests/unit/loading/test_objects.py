import copy
import json
import sys

import keras
import pytest

from keras_metagraph.errors import CustomObjectError, UntrustedContentError
from keras_metagraph.loading.objects import resolve_objects

LAYERS = keras.layers


class Scale(keras.layers.Layer):
    def __init__(self, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, inputs):
        return inputs

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}


class Start(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype)


def half(x):
    return x / 2


def config_of(item):
    return json.loads(json.dumps(keras.saving.serialize_keras_object(item)))


def node(class_name, module, config=None, **fields):
    return {
        "class_name": class_name,
        "module": module,
        "config": {} if config is None else config,
        **fields,
    }


def resolve(config, custom_objects=None, safe_mode=True):
    return resolve_objects(config, custom_objects or {}, safe_mode=safe_mode)


def test_config_itself_is_not_changed():
    config = config_of(Scale(LAYERS.Dense(2)))
    before = copy.deepcopy(config)
    resolve(config, {"Scale": Scale})
    assert config == before


@pytest.mark.parametrize(
    "item",
    [
        LAYERS.Dense(2, activation="gelu", kernel_regularizer="l2"),
        LAYERS.Bidirectional(LAYERS.LSTM(2)),
        LAYERS.Dense(2, dtype="mixed_bfloat16", kernel_constraint="non_neg"),
        LAYERS.StringLookup(vocabulary=["a", "b"]),
        LAYERS.Dropout(0.5, seed=1),
        keras.losses.BinaryCrossentropy(),
        keras.metrics.MeanMetricWrapper(keras.losses.mean_squared_error),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)),
        keras.activations.relu,
        {"shape": [None, 2], "slice": slice(1, 2), "bytes": b"x"},
        [1, "text", None, 2.5, True],
    ],
)
def test_what_keras_has_is_found(item):
    config = config_of(item)
    found = keras.saving.deserialize_keras_object(resolve(config))
    assert config_of(found) == config


def test_functional_model_with_operations_is_found():
    inputs = keras.Input([3])
    hidden = LAYERS.Dense(3)(inputs) + inputs * 2.0
    outputs = keras.ops.concatenate([hidden, keras.ops.relu(inputs)])
    config = config_of(keras.Model(inputs, outputs))
    model = keras.saving.deserialize_keras_object(resolve(config))
    assert config_of(model) == config


def test_all_missing_names_are_in_one_error():
    layer = Scale(
        LAYERS.Dense(2, activation=half, kernel_initializer=Start()), name="outer"
    )
    with pytest.raises(CustomObjectError) as caught:
        resolve([config_of(layer)])
    assert [line.split(",")[0] for line in caught.value.findings] == [
        "'Scale'",
        "'half'",
        "'Start'",
    ]
    assert "outer/dense" in caught.value.findings[1]


def test_nothing_is_constructed_before_all_names_are_found():
    made = []

    class Noisy(Scale):
        def __init__(self, **kwargs):
            made.append(self)
            super().__init__(**kwargs)

    config = [config_of(Noisy()), config_of(Scale())]
    made.clear()
    with pytest.raises(CustomObjectError):
        resolve(config, {"Noisy": Noisy})
    assert not made


def test_near_names_are_proposed():
    with pytest.raises(CustomObjectError, match="nearest: Scales"):
        resolve(config_of(Scale()), {"Scales": Scale})


def test_caller_may_use_the_short_or_the_registered_name():
    config = node("Scale", "gone", {"name": "s"}, registered_name="shop>Scale")
    for key in ("Scale", "shop>Scale"):
        with keras.saving.custom_object_scope({key: Scale}):
            found = keras.saving.deserialize_keras_object(resolve(config, {key: Scale}))
        assert type(found) is Scale


def test_registered_classes_are_found_by_their_registered_name_only():
    class Registered(Scale):
        pass

    keras.saving.register_keras_serializable("objects_test")(Registered)
    try:
        config = config_of(Registered())
        assert type(keras.saving.deserialize_keras_object(resolve(config))) is (
            Registered
        )
        with pytest.raises(CustomObjectError):
            resolve(node("Registered", None, registered_name="other>Registered"))
    finally:
        del keras.saving.get_custom_objects()["objects_test>Registered"]


def test_file_cannot_put_a_registered_class_in_the_place_of_a_built_in_one():
    class Shadow(Scale):
        pass

    keras.saving.register_keras_serializable("objects_test")(Shadow)
    try:
        config = config_of(LAYERS.Dense(2))
        config["registered_name"] = "objects_test>Shadow"
        found = keras.saving.deserialize_keras_object(resolve(config))
        assert type(found) is LAYERS.Dense
    finally:
        del keras.saving.get_custom_objects()["objects_test>Shadow"]


@pytest.mark.parametrize(
    "config",
    [
        node("run", "subprocess"),
        node("Popen", "subprocess", {"args": ["true"]}),
        node("system", "os"),
        node("function", "os", "system"),
        node("function", "builtins", "eval"),
        node("function", "builtins", "deserialize"),
        node("function", "keras.utils", "get_file"),
        node("function", "keras.config", "enable_unsafe_deserialization"),
        node("function", "keras.saving", "load_model"),
        node("get_file", "keras.utils", {"fname": "x"}),
        node("load_model", "keras.models", {"filepath": "x"}),
        node("load_model", "keras.saving", {"filepath": "x"}),
        node("model_from_json", "keras.models", {"json_string": "{}"}),
        node("enable_unsafe_deserialization", "keras.config"),
        node("clear_session", "keras.utils"),
        node("ResNet50", "keras.applications", {"weights": "x"}),
        node("func_load", "keras.src.utils.python_utils", {"code": "x"}),
        node("import_module", "keras.src.saving.serialization_lib"),
        node("Dense", "keras.layers.core"),
        node("Dense", "keras_hub.layers"),
        node("__typespec__", "tensorflow", {}, spec_name="TensorSpec"),
        node(["Dense"], "keras.layers"),
        node("Layer", "__main__"),
    ],
)
@pytest.mark.parametrize("safe_mode", [True, False])
def test_what_is_no_part_of_a_model_is_not_found(config, safe_mode):
    with pytest.raises(CustomObjectError):
        resolve([{"deep": [config]}], safe_mode=safe_mode)


@pytest.mark.parametrize(
    "config",
    [
        node("__lambda__", None, {"value": ["code", None, None]}),
        node("Lambda", "keras.layers", {"function": node("__lambda__", None)}),
        node("TFSMLayer", "keras.layers", {"filepath": "/tmp/x"}),
        node("TorchModuleWrapper", "keras.layers", {"module": "x"}),
        node("JaxLayer", "keras.layers"),
        node("StringLookup", "keras.layers", {"vocabulary": "/etc/passwd"}),
        node("TextVectorization", "keras.layers", {"vocabulary": "http://x/y"}),
        node("Dense", "keras.layers", {"weights_file": "x"}),
    ],
)
def test_code_and_files_are_refused_in_safe_mode(config):
    with pytest.raises(UntrustedContentError, match="safe_mode=False"):
        resolve({"model": config})


def test_code_is_refused_before_missing_names_are_reported():
    with pytest.raises(UntrustedContentError):
        resolve([node("Gone", None), node("__lambda__", None)])


def test_lambda_of_a_named_function_is_found():
    layer = LAYERS.Lambda(half)
    found = resolve(config_of(layer), {"half": half})
    with keras.saving.custom_object_scope({"half": half}):
        assert keras.saving.deserialize_keras_object(found).function is half


def test_no_module_is_imported():
    assert "antigravity" not in sys.modules
    with pytest.raises(CustomObjectError):
        resolve([node("fly", "antigravity"), node("function", "antigravity", "fly")])
    assert "antigravity" not in sys.modules


def test_deep_configs_are_walked_without_recursion():
    config = node("Gone", None)
    for _ in range(50):
        config = [config]
    with pytest.raises(CustomObjectError, match="Gone"):
        resolve(config)
