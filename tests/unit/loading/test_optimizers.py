import pytest
import tensorflow as tf

from keras_metagraph.formats.registry import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.infer import describe_optimizer
from oracle import references

v1 = tf.compat.v1

# What the exports record by other names, or compute in the graph.
ELSEWHERE = {
    "class",
    "name",
    "clip_by_global_norm",
    "initial_accumulator_value",
    "use_nesterov",
    "centered",
    "amsgrad",
}


def describe(build, **arguments):
    with tf.Graph().as_default():
        build()
        meta = v1.train.export_meta_graph()
    return describe_meta(meta, **arguments)


def describe_meta(meta, **arguments):
    graph = graph_from_proto(meta.graph_def)
    return describe_optimizer(graph, graph_variables(meta, graph), **arguments)


def trained(optimizer, use_resource=False, sparse=False, name=None):
    w = v1.get_variable("w", [8, 4], use_resource=use_resource)
    b = v1.get_variable("b", [4], use_resource=use_resource)
    rows = tf.gather(w, [1, 2]) if sparse else w
    loss = tf.reduce_mean((rows + b) ** 2)
    return optimizer.minimize(loss, name=name)


@pytest.mark.parametrize(
    "export",
    [
        export
        for export in references.exports()
        if export.training and "transformer" not in export.name
    ],
    ids=repr,
)
def test_describes_the_optimizers_of_real_exports(export):
    source = export.training.source
    meta = open_export(source.path).select(source.tags)
    (found,) = describe_meta(meta, train_op=[export.training.train_op])

    assert found.name in export.optimizer["class"]
    for key, value in export.optimizer.items():
        if key in ELSEWHERE or not isinstance(value, float):
            continue
        parameter = found.hyper_parameters[key.replace("beta_", "beta")]
        assert parameter == pytest.approx(value) or parameter.startswith("variable")
    assert found.variables


@pytest.mark.parametrize("use_resource", [False, True])
def test_says_slots_and_hyper_parameters(use_resource):
    def build():
        trained(v1.train.AdamOptimizer(0.1, beta1=0.5), use_resource)

    (found,) = describe(build)

    assert found.name == "Adam"
    assert found.hyper_parameters == {
        "learning_rate": 0.1,
        "beta1": 0.5,
        "beta2": 0.999,
        "epsilon": 1e-8,
    }
    assert found.slots["w"] == {"m": "w/Adam", "v": "w/Adam_1"}
    assert found.variables == ("w", "b")
    assert found.sparse == ()
    assert str(found).startswith("Adam(learning_rate=0.1, beta1=0.5")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (
            lambda: v1.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
            ("Momentum", {"learning_rate": 0.1, "momentum": 0.9, "use_nesterov": True}),
        ),
        (
            lambda: v1.train.RMSPropOptimizer(0.1, 0.8, centered=True),
            (
                "RMSProp",
                {
                    "learning_rate": 0.1,
                    "decay": 0.8,
                    "momentum": 0.0,
                    "epsilon": 1e-10,
                    "centered": True,
                },
            ),
        ),
    ],
    ids=["nesterov", "centered"],
)
def test_names_variants_as_tf_train_does(optimizer, expected):
    (found,) = describe(lambda: trained(optimizer()))

    assert (found.name, found.hyper_parameters) == expected


@pytest.mark.parametrize("use_resource", [False, True])
@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (v1.train.AdamOptimizer, "Adam"),
        (v1.train.GradientDescentOptimizer, "GradientDescent"),
        (v1.train.AdagradOptimizer, "Adagrad"),
    ],
)
def test_knows_sparse_updates(optimizer, name, use_resource):
    (found,) = describe(lambda: trained(optimizer(0.1), use_resource, sparse=True))

    assert found.name == name
    assert found.hyper_parameters["learning_rate"] == 0.1
    assert set(found.variables) == {"w", "b"}
    assert found.sparse == ("w",)


def test_hyper_parameters_may_be_computed():
    def build():
        rate = v1.placeholder(tf.float32, [], "rate")
        momentum = v1.get_variable("momentum", initializer=0.9, use_resource=False)
        trained(v1.train.MomentumOptimizer(rate, momentum))

    (found,) = describe(build)

    assert found.hyper_parameters == {
        "learning_rate": "rate:0",
        "momentum": "variable momentum",
    }


def test_does_not_guess_what_plain_ops_are():
    def build():
        w = v1.get_variable("w", [4], use_resource=False)
        loss = tf.reduce_sum(w**2)
        v1.assign_sub(w, 0.1 * tf.gradients(loss, w)[0])

    (found,) = describe(build)

    assert found.name == ""
    assert found.variables == ("w",)
    assert "plain ops" in found.notes[0]


def test_notes_clipping():
    def build():
        w = v1.get_variable("w", [4], use_resource=False)
        optimizer = v1.train.AdagradOptimizer(0.1)
        (pair,) = optimizer.compute_gradients(tf.reduce_sum(w**2))
        (gradient,), _ = tf.clip_by_global_norm([pair[0]], 1.0)
        optimizer.apply_gradients([(gradient, pair[1])])

    (found,) = describe(build)

    assert found.notes == ("gradients are clipped by their global norm",)


def test_looks_only_at_what_the_train_op_runs():
    def build():
        trained(v1.train.AdamOptimizer(0.1), name="first")
        with v1.variable_scope("", reuse=v1.AUTO_REUSE):
            trained(v1.train.AdagradOptimizer(0.2), name="second")

    assert {found.name for found in describe(build)} == {"Adam", "Adagrad"}
    (found,) = describe(build, train_op=["second"])
    assert found.name == "Adagrad"


def test_a_graph_that_does_not_train_has_none():
    assert describe(lambda: v1.get_variable("w", [4])) == []
