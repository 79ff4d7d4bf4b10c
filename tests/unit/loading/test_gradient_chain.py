import pytest
import tensorflow as tf

from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.passes import repair
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.gradient_chain import (
    GradientChain,
    UnknownGradientError,
    describe_chain,
)
from keras_metagraph.loading.infer.optimizers import fused_optimizers
from keras_metagraph.loading.infer.updates import Training

v1 = tf.compat.v1


def chain(change, loss_scale=1.0):
    with tf.Graph().as_default():
        w = v1.get_variable("w", [40, 3], use_resource=False)
        b = v1.get_variable("b", [3], use_resource=False)
        loss = loss_scale * tf.reduce_mean((w + b) ** 2)
        gradients = change(tf.gradients(loss, [w, b]), [w, b])
        optimizer = v1.train.AdamOptimizer(0.1)
        optimizer.apply_gradients(zip(gradients, [w, b], strict=True))
        meta = v1.train.export_meta_graph()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            variables = v1.global_variables()
            values = session.run({v.op.name: v for v in variables})
    source = graph_from_proto(meta.graph_def)
    training = Training(GraphAnalysis(repair(source), graph_variables(meta, source)))
    (found,), _ = fused_optimizers(training)
    return describe_chain(training, found.gradients, values, {})


def each(function):
    return lambda gradients, _: [function(g) for g in gradients]


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        (each(lambda g: g), {}),
        (each(lambda g: tf.clip_by_norm(g, 0.3)), {"clipnorm": 0.3}),
        (each(lambda g: tf.clip_by_value(g, -2.0, 2.0)), {"clipvalue": 2.0}),
        (
            lambda g, _: tf.clip_by_global_norm(g, 5.0)[0],
            {"global_clipnorm": 5.0},
        ),
        (
            # As written before tf.clip_by_* was known.
            each(lambda g: tf.maximum(tf.minimum(g, 0.5), -0.5)),
            {"clipvalue": 0.5},
        ),
        (
            each(lambda g: tf.where(tf.norm(g) > 1.0, g / tf.norm(g), g)),
            {"clipnorm": 1.0},
        ),
        # Nothing is left of the value's bound where the norm is smaller.
        (
            each(lambda g: tf.clip_by_value(tf.clip_by_norm(g, 0.3), -9.0, 9.0)),
            {"clipnorm": 0.3},
        ),
    ],
    ids=["none", "norm", "value", "global", "min_max", "where", "idle_bound"],
)
def test_becomes_arguments_of_keras(change, arguments):
    found = chain(change)

    assert found.arguments == pytest.approx(arguments)
    assert found.findings == ()
    assert found.scale == 1.0


def test_finds_the_scale_of_a_loss():
    found = chain(each(lambda g: tf.clip_by_norm(g / 64.0, 0.3)), loss_scale=64.0)

    assert found.scale == pytest.approx(1 / 64)
    assert found.arguments == {"clipnorm": 0.3}


def test_finds_weight_decay_behind_the_clipping():
    def change(gradients, variables):
        clipped, _ = tf.clip_by_global_norm(gradients, 1.0)
        return [clipped[0] + 0.02 * variables[0], clipped[1]]

    found = chain(change)

    assert found.arguments == {"global_clipnorm": 1.0}
    assert (found.decay, found.decayed) == (0.02, {"w"})


def gathered(gradient):
    zeros = tf.zeros(gradient.shape)
    total = v1.Variable(zeros, trainable=False, use_resource=False)
    return v1.assign_add(total, gradient)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (each(lambda g: g + tf.random.normal(g.shape)), "noise"),
        (each(lambda g: g + 1.0), "something is added to the gradient of w"),
        (each(lambda g: g / (tf.norm(g) + 1e-9)), "multiplied by"),
        (each(tf.sign), "changed also where it is small"),
        (each(lambda g: tf.clip_by_value(g, -1.0, 2.0)), "none of tf.clip_by_"),
        (
            lambda g, _: [g[0], 3.0 * g[1]],
            "multiplied by {'b': 3.0}",
        ),
        (
            each(lambda g: v1.placeholder_with_default(1.0, []) * g),
            None,
        ),
        (each(lambda g: v1.placeholder(tf.float32, []) * g), "what is fed"),
        (each(lambda g: gathered(g)), "gathered over several steps"),
    ],
    ids=[
        "noise",
        "shift",
        "normalized",
        "sign",
        "uneven",
        "multiplied",
        "default",
        "fed",
        "accumulated",
    ],
)
def test_says_what_is_not_carried(change, finding):
    found = chain(change)

    if finding is None:
        assert found == GradientChain()
    else:
        assert finding in found.findings[0]
        assert found.arguments == {}


def test_refuses_gradients_of_no_loss():
    with pytest.raises(UnknownGradientError) as error:
        chain(lambda g, v: [g[0], tf.ones_like(v[1])])

    assert error.value.args == ("b",)
