import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.errors import SignatureError
from keras_metagraph.formats.registry import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.variables import graph_variables
from keras_metagraph.loading.infer import infer_interface
from oracle import references

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def _v1_control_flow():
    """`tf.cond` gives Switch and Merge, as it did in TensorFlow 1."""
    v1.disable_control_flow_v2()
    yield
    v1.enable_control_flow_v2()


def infer(build, **arguments):
    """The interface of the graph that `build()` makes."""
    with tf.Graph().as_default():
        extra = build()
        meta = v1.train.export_meta_graph()
        if callable(extra):
            extra(meta)
    return infer_meta(meta, **arguments)


def infer_meta(meta, **arguments):
    graph = graph_from_proto(meta.graph_def)
    return infer_interface(meta, graph, graph_variables(meta, graph), **arguments)


def placeholder(shape=(None, 4), name=None, dtype=tf.float32):
    return v1.placeholder(dtype, shape, name)


def dense(x, units, name, activation=None):
    with v1.variable_scope(name):
        kernel = v1.get_variable("kernel", [x.shape[-1], units], use_resource=False)
        bias = v1.get_variable("bias", [units], use_resource=False)
        y = tf.nn.bias_add(tf.matmul(x, kernel), bias)
        return activation(y) if activation else y


def cross_entropy(labels, logits, name="loss"):
    losses = v1.nn.sparse_softmax_cross_entropy_with_logits(
        labels=labels, logits=logits
    )
    return tf.reduce_mean(losses, name=name)


def minimize(loss, optimizer=None, **kwargs):
    optimizer = optimizer or v1.train.GradientDescentOptimizer(0.1)
    return optimizer.minimize(loss, **kwargs)


def classifier(x=None, y=None):
    """The graph that most tests vary: x, y, logits, loss, trained."""
    x = placeholder(name="x") if x is None else x
    y = placeholder([None], "y", tf.int64) if y is None else y
    logits = tf.identity(dense(x, 3, "dense"), "logits")
    loss = cross_entropy(y, logits)
    minimize(loss, name="train_op")
    return logits, loss


# Real exports.


@pytest.mark.parametrize("export", references.exports(), ids=repr)
def test_finds_what_the_makers_of_real_exports_named(export):
    source = export.source
    interface = infer_meta(open_export(source.path).select(source.tags))
    labels = {export.training.feeds["y"]} if export.training else set()
    inputs = set(export.feeds.values()) - labels - {export.is_training}

    assert set(interface.inputs.values()) == inputs
    assert set(interface.outputs.values()) & set(export.fetches.values())
    assert interface.unfed == []


@pytest.mark.parametrize(
    "export", [e for e in references.exports() if e.training], ids=repr
)
def test_finds_the_training_step_of_real_exports(export):
    training = export.training
    source = training.source
    interface = infer_meta(open_export(source.path).select(source.tags))
    fed = set(training.feeds.values())

    assert interface.loss == training.loss
    assert interface.train_op == [training.train_op]
    assert set(interface.labels.values()) == {training.feeds["y"]}
    assert set(interface.inputs.values()) == fed - {training.feeds["y"]}
    if export.is_training:
        assert interface.training_values[export.is_training] == (True, False)


def test_is_plain_python():
    interface = infer(classifier, feeds={"x": np.zeros([1, 4], np.float32)})

    assert json.loads(json.dumps(dataclasses.asdict(interface)))["loss"] == "loss:0"


# Inputs, labels, outputs.


def test_tells_unnamed_placeholders_by_their_use():
    def build():
        x, y = placeholder(), placeholder([None, 3])
        prediction = tf.nn.softmax(dense(x, 3, "dense"))
        loss = tf.reduce_mean(-tf.reduce_sum(y * tf.math.log(prediction), 1))
        minimize(loss, v1.train.AdamOptimizer())
        tf.equal(tf.argmax(prediction, 1), tf.argmax(y, 1))

    interface = infer(build)

    assert interface.inputs == {"Placeholder": "Placeholder:0"}
    assert interface.labels == {"Placeholder_1": "Placeholder_1:0"}
    assert interface.outputs == {"Softmax": "Softmax:0"}
    assert interface.train_op == ["Adam"]


def test_a_name_does_not_make_a_label_of_the_only_input():
    def build():
        classifier(placeholder(name="target"), placeholder([None], "z", tf.int64))

    interface = infer(build)

    assert interface.inputs == {"target": "target:0"}
    assert interface.labels == {"z": "z:0"}


def test_what_meets_the_loss_only_is_fed_with_the_labels():
    def build():
        x, y = placeholder(name="x"), placeholder([None, 1], "y")
        weight = placeholder([None, 1], "weight")
        prediction = tf.identity(dense(x, 1, "dense"), "prediction")
        minimize(tf.reduce_mean(weight * (prediction - y) ** 2, name="loss"))

    interface = infer(build)

    assert interface.labels == {"y": "y:0", "weight": "weight:0"}
    assert interface.outputs == {"prediction": "prediction:0"}


def test_what_is_added_to_a_prediction_is_an_input():
    def build():
        x, skip = placeholder(name="x"), placeholder(name="skip")
        prediction = tf.add(dense(x, 4, "dense"), skip, name="prediction")
        minimize(tf.reduce_mean((prediction - placeholder(name="z")) ** 2))

    interface = infer(build)

    assert interface.inputs == {"x": "x:0", "skip": "skip:0"}
    assert interface.labels == {"z": "z:0"}
    assert interface.outputs == {"prediction": "prediction:0"}


def test_states_of_another_network_are_no_inputs():
    def build():
        state, following = placeholder(name="s"), placeholder(name="s_")
        reward, action = placeholder([None], "r"), placeholder([None, 2], "a")
        q = tf.identity(dense(state, 2, "net"), "q")
        target = reward + tf.reduce_max(dense(following, 2, "target_net"), 1)
        chosen = tf.reduce_sum(q * action, 1)
        loss = tf.reduce_mean((tf.stop_gradient(target) - chosen) ** 2)
        minimize(loss)

    interface = infer(build)

    assert interface.inputs == {"s": "s:0"}
    assert set(interface.labels) == {"s_", "r", "a"}
    assert interface.outputs == {"q": "q:0"}


def test_takes_what_is_computed_from_the_prediction_too():
    def build():
        logits, _ = classifier()
        tf.nn.softmax(logits, name="probabilities")
        tf.argmax(logits, 1, name="classes")
        v1.summary.histogram("histogram", logits)
        v1.summary.scalar("size", tf.norm(logits))

    assert set(infer(build).outputs) == {"logits", "probabilities", "classes"}


def test_what_a_metric_decides_is_no_output():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        logits = dense(x, 3, "dense")
        minimize(cross_entropy(y, logits))
        probabilities = tf.nn.softmax(logits, name="probabilities")
        hits = tf.equal(tf.argmax(probabilities, 1), y)
        tf.reduce_mean(tf.cast(hits, tf.float32), name="accuracy")

    outputs = infer(build).outputs

    assert outputs == {
        "dense": "dense/BiasAdd:0",
        "probabilities": "probabilities:0",
    }


def test_statistics_for_summaries_are_no_outputs():
    def build():
        logits, _ = classifier()
        v1.summary.scalar("size", tf.norm(logits))

    assert infer(build).outputs == {"logits": "logits:0"}


def test_the_inside_of_a_layer_is_no_output():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        with tf.name_scope("top"):
            logits = tf.nn.bias_add(
                tf.matmul(x, v1.get_variable("w", [4, 3])), tf.zeros([3])
            )
            tf.nn.softmax(logits)
        minimize(cross_entropy(y, logits))

    assert infer(build).outputs == {"top": "top/Softmax:0"}


def test_steps_back_over_what_the_loss_does():
    def build():
        x, y = placeholder(name="x"), placeholder([None, 3], "y")
        output = dense(x, 3, "dense", tf.nn.softmax)
        with tf.name_scope("Crossentropy"):
            scaled = output / tf.reduce_sum(output, 1, keepdims=True)
            scaled = tf.clip_by_value(scaled, 1e-10, 1.0)
            loss = -tf.reduce_mean(tf.reduce_sum(y * tf.math.log(scaled), 1))
        minimize(loss)

    assert infer(build).outputs == {"dense": "dense/Softmax:0"}


def test_of_two_copies_takes_the_one_without_noise():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        with v1.variable_scope("", reuse=v1.AUTO_REUSE):
            hidden = dense(x, 8, "hidden")
            noisy = dense(hidden + tf.random.normal([8]), 3, "top")
            logits = dense(hidden, 3, "top")
        minimize(cross_entropy(y, noisy))
        tf.identity(hidden, "embedding")
        with tf.name_scope("eval"):
            tf.argmax(logits, 1, name="predictions")

    outputs = infer(build).outputs

    assert outputs["predictions"] == "eval/predictions:0"
    assert "top/BiasAdd:0" not in outputs.values()


def test_a_part_of_the_network_is_no_copy_of_it():
    def build():
        x = placeholder(name="x")
        hidden = dense(x, 4, "hidden")
        classifier(hidden + tf.random.normal([4]))
        tf.identity(hidden, "embedding")

    assert set(infer(build, inputs=["x"]).outputs) == {"embedding", "logits"}


def test_the_name_of_a_copy_is_the_name_of_the_output():
    def build():
        x, y = placeholder(name="x"), placeholder([None, 2], "y")
        boxes = dense(x, 4, "dense")[:, 2:]
        minimize(tf.reduce_mean((boxes - y) ** 2))
        tf.identity(boxes, "boxes")

    assert infer(build).outputs == {"boxes": "boxes:0"}


def test_an_actor_and_its_critic():
    def build():
        state, value = placeholder(name="s"), placeholder([None, 1], "value")
        action = dense(state, 2, "actor", tf.tanh)
        with v1.variable_scope("critic"):
            both = [dense(state, 8, "state", tf.nn.relu), dense(action, 8, "action")]
            q = dense(tf.concat(both, 1), 1, "q")
        critics, actors = v1.trainable_variables("critic"), v1.trainable_variables("ac")
        minimize(tf.reduce_mean((q - value) ** 2), var_list=critics)
        minimize(-tf.reduce_mean(q), var_list=actors)

    interface = infer(build)

    assert set(interface.outputs.values()) == {"actor/Tanh:0", "critic/q/BiasAdd:0"}
    assert interface.labels == {"value": "value:0"}


def test_an_autoencoder_gives_its_reconstruction():
    def build():
        x = placeholder(name="x")
        hidden = dense(x, 2, "encoder", tf.nn.relu)
        decoded = dense(hidden, 4, "decoder", tf.nn.sigmoid)
        minimize(tf.reduce_mean((decoded - x) ** 2))

    interface = infer(build)

    assert interface.outputs == {"decoder": "decoder/Sigmoid:0"}
    assert interface.labels == {}


def test_a_graph_without_training_gives_what_nothing_uses():
    def build():
        hidden = dense(placeholder(name="x"), 8, "hidden", tf.nn.relu)
        probabilities = tf.nn.softmax(dense(hidden, 3, "top"), name="prob")
        tf.argmax(probabilities, 1)
        tf.shape(hidden)
        v1.debugging.Assert(tf.reduce_all(hidden > 0), [hidden])

    interface = infer(build)

    assert interface.outputs == {"prob": "prob:0", "ArgMax": "ArgMax:0"}
    assert interface.loss is None
    assert interface.train_op == []


def test_a_graph_may_take_nothing():
    def build():
        tf.matmul(tf.ones([1, 4]), v1.get_variable("w", [4, 3]), name="y")

    interface = infer(build)

    assert (interface.inputs, interface.outputs) == ({}, {"y": "y:0"})


def test_a_recurrent_net_gives_no_states():
    def build():
        x, y = placeholder([None, 5, 4], "x"), placeholder([None], "y", tf.int64)
        lengths = placeholder([None], "lengths", tf.int32)
        kernel = v1.get_variable("kernel", [4, 4])

        def body(step, state):
            state = tf.tanh(tf.matmul(state + x[:, step], kernel))
            return step + 1, state

        zeros = tf.zeros_like(x[:, 0])
        last = tf.reduce_max(lengths)
        _, state = v1.while_loop(lambda i, s: i < last, body, [0, zeros])
        minimize(cross_entropy(y, dense(state, 3, "top")))

    interface = infer(build)

    assert interface.inputs == {"x": "x:0", "lengths": "lengths:0"}
    assert interface.outputs == {"top": "top/BiasAdd:0"}


def loop(x, weights, steps=3):
    """What a recurrent net gives: a tensor of all steps, and the last state."""

    def body(step, state, outputs):
        state = tf.tanh(tf.matmul(state, weights))
        return step + 1, state, outputs.write(step, state)

    outputs = tf.TensorArray(tf.float32, steps)
    _, state, outputs = v1.while_loop(lambda i, *_: i < steps, body, [0, x, outputs])
    return outputs.stack(), state


def test_a_decoder_without_training_gives_no_states():
    def build():
        outputs, _ = loop(placeholder(name="x"), v1.get_variable("kernel", [4, 4]))
        tf.argmax(outputs, -1)

    outputs = infer(build).outputs.values()

    assert [name for name in outputs if "Exit" in name] == []
    assert "ArgMax:0" in outputs


def test_states_are_outputs_where_a_loop_gives_nothing_else():
    def build():
        start, kernel = [0, placeholder(name="x")], v1.get_variable("kernel", [4, 4])
        v1.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, s @ kernel), start)

    assert infer(build).outputs == {"while": "while/Exit_1:0"}


def test_a_prediction_may_be_made_of_another_one():
    # Tacotron: mel frames have targets, and so has what a second net makes of them.
    def build():
        x = placeholder(name="x")
        coarse, fine = placeholder(name="coarse"), placeholder([None, 6], "fine")
        mel = dense(x, 4, "mel")
        rows, _ = loop(mel, v1.get_variable("kernel", [4, 4], use_resource=False))
        linear = dense(tf.reduce_sum(rows, 0), 6, "linear")
        errors = tf.abs(coarse - mel), tf.abs(fine - linear)
        minimize(tf.add_n([tf.reduce_mean(error) for error in errors]))

    interface = infer(build)

    assert interface.outputs == {"mel": "mel/BiasAdd:0", "linear": "linear/BiasAdd:0"}
    assert interface.labels == {"coarse": "coarse:0", "fine": "fine:0"}


def test_a_dense_layer_of_sequences_keeps_its_shape():
    def build():
        x, y = (
            placeholder([None, None, 4], "x"),
            placeholder([None, None], "y", tf.int64),
        )
        kernel = v1.get_variable("kernel", [4, 3], use_resource=False)
        logits = tf.tensordot(x, kernel, [[2], [0]], name="projection")
        minimize(cross_entropy(y, logits))

    assert infer(build).outputs == {"projection": "projection:0"}


def test_a_model_of_its_own_next_input_gives_what_is_not_flattened():
    def build():
        samples = placeholder([None, None, 3], "samples")
        logits = dense(tf.reshape(samples[:, :-1], [-1, 3]), 3, "net")
        logits = tf.reshape(logits, [tf.shape(samples)[0], -1, 3], name="frames")
        losses = v1.nn.softmax_cross_entropy_with_logits(
            labels=samples[:, 1:], logits=logits
        )
        minimize(tf.reduce_mean(losses))

    assert infer(build).outputs == {"frames": "frames:0"}


def test_no_output_is_called_a_loss():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        top = dense(x, 3, "top")
        with tf.name_scope("loss"):  # as in BERT's classifier
            tf.nn.softmax(top)
            minimize(cross_entropy(y, top))

    assert "loss" not in infer(build).outputs


def test_a_loss_may_have_weights_of_its_own():
    def build():
        words, context = (placeholder([8], n, tf.int32) for n in ("words", "context"))
        vectors = v1.get_variable("vectors", [50, 4], use_resource=False)
        outer = v1.get_variable("outer", [50, 4], use_resource=False)
        embedded = tf.gather(vectors, words, name="embedded")
        loss = v1.nn.nce_loss(outer, tf.zeros([50]), context[:, None], embedded, 4, 50)
        minimize(tf.reduce_mean(loss))

    interface = infer(build)

    assert interface.inputs == {"words": "words:0"}
    assert interface.labels == {"context": "context:0"}
    assert interface.outputs == {"embedded": "embedded:0"}


def test_leaves_out_what_a_hub_module_keeps_for_itself():
    def build():
        for scope in ("module/hub_input", "mine"):
            with tf.name_scope(scope):
                x = placeholder(name="images")
            dense(x, 3, scope.partition("/")[0])

    assert infer(build).inputs == {"images": "mine/images:0"}


# Placeholders that are no data.


@pytest.mark.parametrize(
    ("dropout", "values"),
    [
        (lambda x, p, u: x / p * tf.floor(p + u), (1.0, 1.0)),
        (lambda x, p, u: x / (1 - p) * tf.floor((1 - p) + u), (0.0, 0.0)),
        (lambda x, p, u: x / (1 - p) * tf.cast(u >= p, x.dtype), (0.0, 0.0)),
        (lambda x, p, u: x / p * tf.cast(u >= 1 - p, x.dtype), (1.0, 1.0)),
    ],
    ids=["keep", "1 - rate", "rate", "1 - keep"],
)
def test_tells_dropout_by_its_arithmetic(dropout, values):
    def build():
        x = placeholder(name="x")
        share = placeholder(None, "p")
        uniform = tf.random.uniform(tf.shape(x)) * 1.0 + 0.0
        classifier(tf.reshape(dropout(x, share, uniform), [-1, 4]))

    interface = infer(build)

    assert interface.inputs == {"x": "x:0"}
    assert interface.training_values == {"p:0": values}
    assert "training_flag={'p:0'" in interface.warnings[0]


@pytest.mark.parametrize("shape", [[None], None])
@pytest.mark.parametrize(
    ("places", "length"), [((0, 1), 2), ((-1, 0), 1), ((-3,), 3)], ids=str
)
def test_a_vector_has_the_keep_probability_of_each_layer(shape, places, length):
    def build():
        keep = placeholder(shape, "keep")
        x = placeholder(name="x")
        for place in places:
            x = v1.nn.dropout(x, keep_prob=keep[place])
        classifier(tf.reshape(x, [-1, 4]))

    interface = infer(build)

    assert interface.inputs == {"x": "x:0"}
    assert interface.training_values == {"keep:0": ([1.0] * length, [1.0] * length)}
    assert f"{[0.5] * length}" in interface.warnings[0]


def test_a_vector_of_dropout_rates_may_be_unpacked():
    def build():
        first, second = tf.unstack(placeholder([2], "rates"))
        x = v1.nn.dropout(placeholder(name="x"), rate=first)
        classifier(tf.reshape(v1.nn.dropout(x, rate=second), [-1, 4]))

    assert infer(build).training_values == {"rates:0": ([0.0, 0.0], [0.0, 0.0])}


def test_a_vector_that_is_used_otherwise_too_is_an_input():
    def build():
        keep = placeholder([4], "keep")
        x = v1.nn.dropout(placeholder(name="x"), keep_prob=keep[0]) * keep
        classifier(tf.reshape(x, [-1, 4]))

    interface = infer(build)

    assert interface.inputs == {"keep": "keep:0", "x": "x:0"}
    assert interface.training_values == {}


def test_the_default_of_a_dropout_rate_is_its_value_when_training():
    def build():
        rate = v1.placeholder_with_default(0.3, [], "rate")
        classifier(v1.nn.dropout(placeholder(name="x"), rate=rate))

    interface = infer(build)

    assert interface.training_values == {"rate:0": (0.3, 0.0)}
    assert interface.warnings == []


@pytest.mark.parametrize("control_flow_v2", [False, True])
@pytest.mark.parametrize(
    ("name", "random_when", "values"),
    [
        ("is_training", True, (True, False)),
        ("deterministic", False, (False, True)),
        ("flag", True, (True, False)),
        ("flag", False, (False, True)),
    ],
)
def test_a_flag_trains_where_its_branch_is_random(
    name, random_when, values, control_flow_v2
):
    def build():
        if control_flow_v2:
            v1.enable_control_flow_v2()
        x = placeholder(name="x")
        flag = placeholder([], name, tf.bool)
        noisy = lambda: x + tf.random.normal(tf.shape(x))  # noqa: E731
        branches = (noisy, lambda: x) if random_when else (lambda: x, noisy)
        classifier(v1.cond(flag, *branches))

    interface = infer(build)

    assert interface.training_values == {f"{name}:0": values}
    assert interface.inputs == {"x": "x:0"}


def test_a_flag_that_is_not_used_is_left_out():
    def build():
        placeholder([], "is_training", tf.bool)
        classifier()

    assert infer(build).training_values == {}


def test_a_flag_in_a_variable_is_fed_where_it_is_read():
    def build():
        flag = v1.get_variable(
            "is_training", initializer=False, trainable=False, use_resource=False
        )
        flag.assign(True)
        x = placeholder(name="x")
        noisy = v1.cond(flag, lambda: x + tf.random.normal([4]), lambda: x)
        classifier(noisy)

    assert infer(build).training_values == {"is_training/read:0": (True, False)}


def test_a_learning_rate_is_never_an_input():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        rate = placeholder(None, "learning_rate")
        loss = cross_entropy(y, dense(x, 3, "dense"))
        minimize(loss, v1.train.MomentumOptimizer(rate, 0.9))

    interface = infer(build)
    assert interface.inputs == {"x": "x:0"}
    assert interface.labels == {"y": "y:0"}
    assert interface.unfed == ["learning_rate:0"]
    assert interface.unfed_outputs == []
    assert "learning rate" in interface.reasons["learning_rate:0"]

    interface = infer(build, feeds={"learning_rate": 0.5})
    assert interface.training_values == {"learning_rate:0": (0.5, 0.5)}
    assert interface.unfed == []


def test_a_number_that_the_outputs_need_is_not_fed_with_the_batch():
    def build():
        classifier(placeholder(name="x") * placeholder([], "temperature"))

    interface = infer(build)

    assert interface.inputs == {"x": "x:0"}
    assert interface.unfed_outputs == ["temperature:0"]


def test_a_default_is_left_alone():
    def build():
        scale = v1.placeholder_with_default(2.0, [], "scale")
        classifier(placeholder(name="x") * scale)

    interface = infer(build)

    assert interface.inputs == {"x": "x:0"}
    assert interface.training_values == {}
    assert interface.unfed == []


def test_a_default_from_a_queue_is_the_input():
    def build():
        queue = v1.FIFOQueue(8, [tf.float32, tf.int64], [[4], []])
        images, labels = queue.dequeue_many(2)
        classifier(v1.placeholder_with_default(images, [None, 4], "x"), labels)

    assert infer(build).inputs == {"x": "x:0"}


def test_sparse_placeholders_are_three_inputs():
    def build():
        x = v1.sparse_placeholder(tf.float32, [None, 4], "bag")
        kernel = v1.get_variable("kernel", [4, 3])
        tf.sparse.sparse_dense_matmul(x, kernel, name="y")

    inputs = infer(build).inputs

    assert inputs["bag_indices"] == "bag/indices:0"
    assert inputs["bag_values"] == "bag/values:0"


def test_names_are_made_fit_for_keras():
    def build():
        with tf.name_scope("one"):
            a, x = placeholder(name="x"), placeholder(name="x-input")
        with tf.name_scope("two"):
            b = placeholder(name="x")
        dense(tf.concat([a, b, x], 1), 3, "dense")

    assert infer(build).inputs == {
        "one_x": "one/x:0",
        "x-input": "one/x-input:0",
        "two_x": "two/x:0",
    }


def test_workers_have_copies_of_the_weights():
    def build():
        dense(placeholder(name="observed"), 3, "global/net")
        shared = v1.trainable_variables("global")
        for place in range(2):
            with tf.name_scope(f"worker_{place}"):
                x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
                logits = dense(x, 3, f"worker_{place}/net", tf.identity)
                loss = cross_entropy(y, logits)
                copies = v1.trainable_variables(f"worker_{place}")
                gradients = tf.gradients(loss, copies)
                v1.train.GradientDescentOptimizer(0.1).apply_gradients(
                    zip(gradients, shared, strict=True), name="train_op"
                )

    train_ops = ["worker_0/train_op", "worker_1/train_op"]
    found = infer(build)
    assert set(found.inputs.values()) == {"worker_0/x:0", "worker_1/x:0"}
    assert set(found.labels.values()) == {"worker_0/y:0", "worker_1/y:0"}
    assert found.alternatives["train_op"] == train_ops
    assert infer(build, train_op=train_ops[1]).inputs == {"x": "worker_1/x:0"}


def test_what_is_asked_about_a_prediction_is_no_input():
    def build():
        logits, _ = classifier()
        which = placeholder([None, 2], "which", tf.int32)
        tf.gather_nd(logits, which, name="answer")

    interface = infer(build)

    assert interface.inputs == {"x": "x:0"}
    assert interface.outputs == {"logits": "logits:0"}
    assert interface.alternatives["outputs"] == ["answer:0"]


# Input pipelines.


def test_a_number_from_a_pipeline_is_an_input():
    def build():
        queue = v1.FIFOQueue(8, [tf.int64, tf.float32, tf.int64])
        indices, values, size = queue.dequeue()
        indices.set_shape([None, 2])
        values.set_shape([None])
        size.set_shape([])
        x = tf.SparseTensor(indices, values, tf.stack([size, 4]))
        w = v1.get_variable("w", [4, 2], use_resource=False)
        tf.sparse.sparse_dense_matmul(x, w, name="y")

    interface = infer(build)

    assert interface.unfed == []
    assert "fifo_queue_Dequeue:2" in interface.inputs.values()


def test_cuts_behind_what_a_counter_slices_out_of_constants():
    # The PTB tutorial: one queue gives the number of the batch, for words and targets.
    def build():
        data = tf.reshape(tf.range(40) % 7, [2, 20], name="data")
        step = v1.train.range_input_producer(4, shuffle=False).dequeue()
        words = tf.strided_slice(data, [0, step * 4], [2, (step + 1) * 4], name="words")
        then = [0, step * 4 + 1], [2, (step + 1) * 4 + 1]
        targets = tf.strided_slice(data, *then, name="following")
        v1.add_to_collection("train/words", words)
        embedding = v1.get_variable("embedding", [7, 4], use_resource=False)
        vectors = tf.reshape(tf.gather(embedding, words), [-1, 4])
        loss = cross_entropy(tf.reshape(targets, [-1]), dense(vectors, 7, "top"))
        minimize(loss)

    interface = infer(build)

    assert interface.inputs == {"words": "words:0"}
    assert interface.labels == {"following": "following:0"}
    assert interface.outputs == {"top": "top/BiasAdd:0"}


def test_cuts_queues():
    def build():
        filled = placeholder([None, 4], "filled")
        queue = v1.FIFOQueue(8, [tf.float32, tf.int64], [[4], []])
        queue.enqueue_many([filled, tf.zeros([1], tf.int64)])
        images, labels = queue.dequeue_many(2, name="batch")
        classifier(tf.identity(images, "images"), labels)

    interface = infer(build)

    assert interface.inputs == {"images": "batch:0"}
    assert interface.labels == {"batch_1": "batch:1"}


def test_cuts_iterators():
    def build():
        data = tf.data.Dataset.from_tensors((tf.ones([2, 4]), tf.zeros([2], tf.int64)))
        classifier(*v1.data.make_initializable_iterator(data).get_next())

    interface = infer(build)

    assert interface.inputs == {"IteratorGetNext": "IteratorGetNext:0"}
    assert interface.labels == {"IteratorGetNext_1": "IteratorGetNext:1"}


def test_cuts_behind_the_parser_of_records():
    def build():
        queue = v1.FIFOQueue(8, [tf.string], [[]])
        features = {
            "image": v1.FixedLenFeature([4], tf.float32),
            "label": v1.FixedLenFeature([], tf.int64),
        }
        parsed = v1.parse_example(queue.dequeue_many(2), features, "Parse")
        classifier(parsed["image"], parsed["label"])

    interface = infer(build)

    assert list(interface.inputs.values()) == ["Parse/Parse:0"]
    assert list(interface.labels.values()) == ["Parse/Parse:1"]


# Loss and train op.


def test_follows_gradients_through_a_sum():
    def build():
        x, action = placeholder(name="ob"), placeholder([None], "action", tf.int64)
        advantage, returns = placeholder([None], "adv"), placeholder([None], "returns")
        policy, value = dense(x, 4, "pi"), tf.squeeze(dense(x, 1, "vf"), 1)
        chosen = v1.nn.sparse_softmax_cross_entropy_with_logits(
            labels=action, logits=policy
        )
        loss = tf.reduce_mean(advantage * chosen) + tf.reduce_mean(
            (value - returns) ** 2
        )
        variables = v1.trainable_variables()
        gradients, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), 0.5)
        optimizer = v1.train.RMSPropOptimizer(0.1)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    interface = infer(build)

    assert interface.loss == "add:0"
    assert interface.train_op == ["RMSProp"]
    assert set(interface.labels) == {"action", "adv", "returns"}


def test_a_loss_of_many_numbers():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        minimize(
            v1.nn.sparse_softmax_cross_entropy_with_logits(
                labels=y, logits=dense(x, 3, "dense"), name="losses"
            )
        )

    assert infer(build).loss == "losses/losses:0"


def test_the_loss_has_the_name_that_the_user_gave_it():
    def build():
        x, y = placeholder(name="x"), placeholder([None, 1], "y")
        error = tf.reduce_mean((dense(x, 1, "dense") - y) ** 2, name="mse")
        minimize(tf.identity(error, "total_loss"))

    assert infer(build).loss == "total_loss:0"


def test_assigned_updates_are_all_run():
    def build():
        x, y = placeholder(name="x"), placeholder([None, 1], "y")
        loss = tf.reduce_mean((dense(x, 1, "dense") - y) ** 2, name="loss")
        for place, variable in enumerate(v1.trainable_variables()):
            gradient = tf.gradients(loss, variable)[0]
            v1.assign(variable, variable - 0.1 * gradient, name=f"step_{place}")

    interface = infer(build)

    assert sorted(interface.train_op) == ["step_0", "step_1"]
    assert interface.loss == "loss:0"


def test_takes_the_group_around_the_train_op():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        step = v1.train.get_or_create_global_step()
        loss = cross_entropy(y, dense(x, 3, "dense"))
        train_op = minimize(loss, global_step=step)
        average = v1.train.ExponentialMovingAverage(0.9, step)
        with tf.control_dependencies([train_op]):
            averages = average.apply(v1.trainable_variables())
        with tf.control_dependencies([averages]):
            tf.no_op("train")

    assert infer(build).train_op == ["train"]


def test_of_two_steps_takes_the_one_that_trains_all():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        loss = cross_entropy(y, dense(dense(x, 8, "base"), 3, "top"))
        top = v1.trainable_variables("top")
        minimize(loss, name="train_top", var_list=top)
        minimize(loss, name="train_all")

    assert infer(build).train_op == ["train_all"]


def test_of_two_networks_trains_none():
    def build():
        real, z = placeholder(name="real"), placeholder([None, 2], "z")
        fake = dense(z, 4, "generator", tf.nn.sigmoid)
        with v1.variable_scope("", reuse=v1.AUTO_REUSE):
            truth, lie = dense(real, 1, "critic"), dense(fake, 1, "critic")
        critics, makers = (
            v1.trainable_variables(name) for name in ("critic", "generator")
        )
        minimize(tf.reduce_mean(lie - truth), name="critic_step", var_list=critics)
        minimize(-tf.reduce_mean(lie), name="maker_step", var_list=makers)

    interface = infer(build)
    assert interface.train_op == []
    assert interface.loss is None
    assert set(interface.alternatives["train_op"]) == {"critic_step", "maker_step"}
    assert "train_op=" in interface.warnings[0]
    assert "generator/Sigmoid:0" in interface.outputs.values()
    assert interface.inputs == {"real": "real:0", "z": "z:0"}

    interface = infer(build, train_op="critic_step")
    assert interface.train_op == ["critic_step"]
    assert interface.loss is not None


def test_the_inner_gradient_of_a_penalty_is_no_loss():
    def build():
        x = placeholder(name="x")
        score = dense(x, 1, "critic")
        slope = tf.gradients(score, x)[0]
        minimize(tf.add(tf.reduce_mean(score), tf.norm(slope), name="loss"))

    interface = infer(build)

    assert interface.loss == "loss:0"
    assert "loss" not in interface.alternatives


# Collections.


def test_ignores_collections_of_what_is_not_there():
    def build():
        classifier()
        v1.add_to_collection("probe", tf.zeros([], name="gone"))

        def edit(meta):
            meta.collection_def["trainops"].node_list.value.append("Adam")
            del meta.collection_def["train_op"]

        return edit

    interface = infer(build)

    assert interface.train_op == ["train_op"]
    assert interface.dropped == [
        "collection 'trainops' names 'Adam', which is not in the graph"
    ]


def test_a_collection_of_the_user_names_an_output():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        hidden = dense(x, 8, "hidden", tf.nn.relu)
        v1.add_to_collection("features_op", hidden)
        v1.add_to_collection("y_collection", y)
        minimize(cross_entropy(y, dense(hidden, 3, "top")))

    assert infer(build).outputs == {
        "features_op": "hidden/Relu:0",
        "top": "top/BiasAdd:0",
    }


@pytest.mark.parametrize("by_tensor", [False, True])
def test_takes_update_ops_that_need_nothing_but_inputs(by_tensor):
    def build():
        logits, loss = classifier()
        mean = v1.get_variable("mean", [3], trainable=False, use_resource=False)
        seen = v1.get_variable("seen", [], trainable=False, use_resource=False)
        update = v1.assign_sub(mean, tf.reduce_mean(logits, 0), name="update")
        v1.add_to_collection("update_ops", update if by_tensor else update.op)
        v1.add_to_collection("update_ops", v1.assign_add(seen, loss, name="count"))
        penalty = tf.nn.l2_loss(v1.trainable_variables()[0], name="penalty")
        v1.add_to_collection("regularization_losses", penalty)

    interface = infer(build)

    assert interface.updates == ["update:0" if by_tensor else "update"]
    assert interface.alternatives["updates"] == ["count:0"]
    assert interface.losses == ["penalty:0"]


def test_finds_moving_averages_that_only_the_train_op_runs():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        mean = v1.get_variable("mean", [4], trainable=False, use_resource=False)
        update = v1.assign_sub(mean, 0.1 * (mean - tf.reduce_mean(x, 0)), name="move")
        loss = cross_entropy(y, dense(x - mean, 3, "dense"))
        tf.group(minimize(loss), update, name="train_op")

    interface = infer(build)

    assert interface.updates == ["move"]
    assert interface.train_op == ["train_op"]
    assert interface.outputs == {"dense": "dense/BiasAdd:0"}


# Signatures.


def with_signatures(**signatures):
    """Builds `classifier` with signatures: `name=(inputs, outputs[, method])`."""

    def build():
        classifier()

        def edit(meta):
            for name, (inputs, outputs, *method) in signatures.items():
                signature = meta.signature_def[name]
                signature.method_name = method[0] if method else "predict"
                for side, names in (
                    (signature.inputs, inputs),
                    (signature.outputs, outputs),
                ):
                    for key, tensor in names.items():
                        side[key].name = tensor

        return edit

    return build


def test_takes_inputs_and_outputs_of_the_default_signature():
    build = with_signatures(
        predict=({"x": "x:0"}, {"y": "dense/BiasAdd:0"}),
        serving_default=({"data/in": "x:0"}, {"scores": "logits:0"}),
    )

    interface = infer(build)
    assert interface.signature == "serving_default"
    assert interface.inputs == {"data_in": "x:0"}
    assert interface.outputs == {"scores": "logits:0"}
    assert interface.labels == {"y": "y:0"}
    assert interface.train_op == ["train_op"]

    interface = infer(build, signature="predict")
    assert interface.outputs == {"y": "dense/BiasAdd:0"}


def test_prefers_signatures_that_predict():
    build = with_signatures(
        classify=({"inputs": "x:0"}, {"scores": "logits:0"}, "classify"),
        reset=({}, {"done": "dense/bias:0"}),
        __saved_model_init_op=({}, {"op": "init"}),
        zeta=({"x": "x:0"}, {"y": "logits:0"}, "tensorflow/serving/predict"),
    )

    assert infer(build).signature == "zeta"


def test_a_supervised_signature_has_labels_and_loss():
    build = with_signatures(
        train=(
            {"x": "x:0", "label": "y:0"},
            {
                "loss": "loss:0",
                "predictions/logits": "logits:0",
                "metrics/mean/value": "loss:0",
            },
            "tensorflow/supervised/training",
        )
    )

    interface = infer(build)

    assert interface.inputs == {"x": "x:0"}
    assert interface.labels == {"label": "y:0"}
    assert interface.outputs == {"logits": "logits:0"}
    assert interface.loss == "loss:0"


def test_names_the_signatures_there_are():
    build = with_signatures(predict=({"x": "x:0"}, {"y": "logits:0"}))

    with pytest.raises(SignatureError, match="nearest: predict"):
        infer(build, signature="predic")


def test_does_not_follow_a_signature_of_what_is_not_there():
    build = with_signatures(serving_default=({"x": "gone:0"}, {"y": "logits:0"}))

    interface = infer(build)
    assert interface.signature is None
    assert interface.inputs == {"x": "x:0"}
    assert "gone:0" in interface.dropped[0]

    with pytest.raises(SignatureError, match="gone:0"):
        infer(build, signature="serving_default")


def test_outputs_of_the_caller_may_need_other_inputs_than_the_signature():
    build = with_signatures(serving_default=({"x": "x:0"}, {"y": "logits:0"}))

    interface = infer(build, outputs="loss")

    assert set(interface.inputs.values()) == {"x:0", "y:0"}


def test_reads_the_signatures_of_a_session_bundle():
    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    def binding(name):
        return field(1, name.encode())

    default = field(1, field(1, field(1, binding("x:0")) + field(2, binding("logits"))))

    def build():
        classifier()

        def edit(meta):
            message = meta.collection_def["serving_signatures"].any_list.value.add()
            message.type_url = "type.googleapis.com/tensorflow.serving.Signatures"
            message.value = default

        return edit

    interface = infer(build)

    assert interface.inputs == {"inputs": "x:0"}
    assert interface.outputs == {"outputs": "logits:0"}


# What the caller names.


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"data": "x"}, {"data": "x:0"}),
        (["x:0"], {"x": "x:0"}),
        ("x", {"x": "x:0"}),
    ],
)
def test_takes_names_in_every_form(names, expected):
    assert infer(classifier, inputs=names).inputs == expected


def test_the_caller_may_cut_the_graph_anywhere():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        hidden = tf.identity(dense(x, 4, "base"), "hidden")
        minimize(cross_entropy(y, dense(hidden, 3, "top")))

    interface = infer(build, inputs=["hidden"])

    assert interface.inputs == {"hidden": "hidden:0"}
    assert interface.labels == {"y": "y:0"}
    assert interface.outputs == {"top": "top/BiasAdd:0"}


def test_what_the_caller_names_wins():
    interface = infer(
        classifier,
        outputs={"classes": "dense/BiasAdd:0"},
        labels={"truth": "y"},
        loss="loss",
        train_op="train_op:0",
        training_flag={"x": (1, 0)},
    )

    assert interface.outputs == {"classes": "dense/BiasAdd:0"}
    assert interface.labels == {"truth": "y:0"}
    assert interface.loss == "loss:0"
    assert interface.train_op == ["train_op"]
    assert interface.training_values == {"x:0": (1, 0)}
    assert interface.reasons["y:0"] == "named by the caller"


def test_lists_every_unknown_name_at_once():
    with pytest.raises(SignatureError) as caught:
        infer(
            classifier,
            inputs=["xx"],
            outputs={"a": "logitz:0", "b": "logits:1"},
            labels="nothing_like_it",
            loss="los",
            train_op=["train_opp"],
            training_flag={"y": True},
            feeds={"keep_prob": 1.0},
        )

    text = "\n".join(caught.value.findings)
    assert len(caught.value.findings) == 8
    assert "outputs: 'logitz:0'; nearest: logits" in text
    assert "train_op: 'train_opp'; nearest: train_op" in text
    assert "'logits:1'; node 'logits' (Identity) has 1 output" in text
    assert "expected a pair" in text


# Own files.


def test_a_file_of_this_package_says_it_itself():
    description = {
        "graphs": {
            "predict": {"inputs": {"a": "x:0"}, "outputs": {"b": "dense/BiasAdd:0"}},
            "train": {"labels": {"c": "y:0"}, "loss": "loss:0", "train_op": "train_op"},
        }
    }

    def build():
        classifier()

        def edit(meta):
            values = meta.collection_def["keras_metagraph"].bytes_list.value
            values.append(json.dumps(description).encode())

        return edit

    interface = infer(build)

    assert interface.inputs == {"a": "x:0"}
    assert interface.outputs == {"b": "dense/BiasAdd:0"}
    assert interface.labels == {"c": "y:0"}
    assert interface.reasons["loss:0"] == "the file says it"


def test_train_ops_of_one_loss_are_run_by_what_waits_for_all():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        logits = dense(x, 3, "wide") + dense(x, 3, "deep")
        loss = cross_entropy(y, logits)
        step = v1.get_variable("count", initializer=0, use_resource=False)
        parts = [
            minimize(loss, var_list=v1.trainable_variables(scope), name=scope)
            for scope in ("wide", "deep")
        ]
        for part in parts:
            v1.add_to_collection("train_op", part)
        with tf.control_dependencies(parts):
            v1.assign_add(step, 1, name="step")

    found = infer(build)
    assert found.train_op == ["step"]
    assert found.loss == "loss:0"


def test_train_op_inside_a_condition_is_run_by_what_comes_after_it():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        loss = cross_entropy(y, dense(x, 3, "dense"))
        count = v1.get_variable("count", initializer=0, use_resource=False)
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        gradients = optimizer.compute_gradients(loss)
        # The optimizer puts what is inside into the collection.
        v1.cond(
            tf.equal(count % 2, 0),
            lambda: optimizer.apply_gradients(gradients),
            tf.no_op,
        )

    assert infer(build).train_op == ["cond/Merge"]


def test_loss_of_replicas_is_what_is_computed_from_all():
    def build():
        x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
        losses, gradients = [], []
        for place in range(2):
            with v1.variable_scope("net", reuse=place > 0), tf.name_scope(f"t{place}"):
                loss = cross_entropy(y[place::2], dense(x[place::2], 3, "dense"))
            losses.append(loss)
            gradients.append(tf.gradients(loss, v1.trainable_variables()))
        tf.add_n(losses, name="total")
        means = [tf.add_n(pair) / 2.0 for pair in zip(*gradients, strict=True)]
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        optimizer.apply_gradients(
            zip(means, v1.trainable_variables(), strict=True), name="train_op"
        )

    assert infer(build).loss == "total:0"


def _normalized(x, name, flag):
    """A dense layer, and moments of the batch or others, in a condition on a flag."""
    y = dense(x, 4, name)
    with v1.variable_scope(name):
        beta = v1.get_variable("beta", [4], use_resource=False)
        y = v1.cond(flag, lambda: (y - tf.reduce_mean(y, 0)) + beta, lambda: y + beta)
        return tf.nn.relu(y)


def _pair_of_networks(grouped):
    """Each network maps to the domain of the other, and back, as CycleGAN has it."""
    flag = v1.placeholder_with_default(True, [], "is_training")
    x, y = placeholder(name="photo"), placeholder(name="sketch")

    def network(name, reuse):
        def call(value):
            with v1.variable_scope(name, reuse=reuse):
                scaled = tf.tanh(value, name="layer/scaled")
                return _normalized(scaled, "layer", flag)

        return call

    fake_y, fake_x = network("G", False)(x), network("F", False)(y)
    back_x, back_y = network("F", True)(fake_y), network("G", True)(fake_x)
    cycle = tf.reduce_mean(abs(back_x - x)) + tf.reduce_mean(abs(back_y - y))
    steps = [
        minimize(
            cycle + tf.reduce_mean(fake),
            var_list=v1.trainable_variables(name),
            name=f"train_{name}",
        )
        for name, fake in (("G", fake_y), ("F", fake_x))
    ]
    if grouped:
        with tf.control_dependencies(steps):
            tf.no_op("optimizers")


def test_networks_with_conditions_that_feed_each_other():
    found = infer(lambda: _pair_of_networks(grouped=True))
    assert sorted(found.inputs.values()) == ["photo:0", "sketch:0"]
    # Not what lies inside of a condition, nor what a network makes of its input.
    assert sorted(found.outputs.values()) == [
        "F/layer_1/Relu:0",
        "F_1/layer_1/Relu:0",
        "G/layer_1/Relu:0",
        "G_1/layer_1/Relu:0",
    ]
    assert found.training_values == {"is_training:0": (True, False)}


@pytest.mark.parametrize("grouped", [True, False])
def test_steps_that_the_user_grouped_are_one(grouped):
    found = infer(lambda: _pair_of_networks(grouped))
    assert found.train_op == (["optimizers"] if grouped else [])
    assert ("train_op" in found.alternatives) is not grouped


def test_what_a_loss_adds_is_no_output():
    def build():
        real = placeholder(name="real")
        score = dense(real, 1, "critic", tf.nn.sigmoid)
        with tf.name_scope("critic_loss"):
            loss = -tf.reduce_mean(v1.log(score + 1e-12))
        minimize(loss)

    assert list(infer(build).outputs.values()) == ["critic/Sigmoid:0"]


def test_a_layer_that_normalizes_gives_what_leaves_it():
    def build():
        image, style = placeholder(name="image"), placeholder([], "style", tf.int32)
        with v1.variable_scope("net"):
            y = dense(image + tf.cast(style, tf.float32), 4, "layer")
            with v1.variable_scope("layer"), tf.name_scope("net/layer/"):
                gains = v1.get_variable("gains", [3, 4], use_resource=False)
                with tf.name_scope("normal"):
                    gain = tf.gather(gains, style)
                    y = (y - tf.reduce_mean(y, 0)) * gain
                y = tf.sigmoid(y)
        minimize(tf.reduce_mean(tf.square(y - image)) + tf.reduce_mean(abs(y[1:])))

    outputs = infer(build).outputs.values()
    assert [name.rpartition("/")[2] for name in outputs] == ["Sigmoid:0"]


def test_replicas_are_no_networks_that_feed_each_other():
    def build():
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        gradients = []
        for place in range(2):
            with (
                tf.name_scope(f"tower_{place}"),
                v1.variable_scope("", reuse=bool(place)),
            ):
                x, y = placeholder(name="x"), placeholder([None], "y", tf.int64)
                hidden = dense(x, 4, "hidden", tf.nn.relu)
                loss = cross_entropy(y, dense(hidden, 3, "top"))
            gradients.append(optimizer.compute_gradients(loss))
        means = [
            ((first + second) / 2.0, variable)
            for (first, variable), (second, _) in zip(*gradients, strict=True)
        ]
        optimizer.apply_gradients(means, name="train")

    assert sorted(infer(build).outputs.values()) == [
        "tower_0/top/BiasAdd:0",
        "tower_1/top/BiasAdd:0",
    ]


def test_slices_that_a_loss_takes_are_one_prediction():
    def build():
        x, truth = placeholder(name="x"), placeholder([None, 3], "truth")
        boxes = tf.identity(dense(x, 3, "head"), "boxes")
        cells = tf.reshape(boxes, [-1, 3])
        places = tf.square(tf.sigmoid(cells[:, :2]) - truth[:, :2])
        loss = tf.reduce_mean(places) + tf.reduce_mean(abs(cells[:, 2:] - truth[:, 2:]))
        minimize(loss)
        tf.exp(cells[:, 2:], name="sizes")

    assert sorted(infer(build).outputs.values()) == ["boxes:0", "sizes:0"]
