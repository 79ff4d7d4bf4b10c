"""Graphs whose train op does more than to update weights, and how they train.

`main` writes the export `kind` to `prefix`, trains on, and returns the losses of each
step and the variables after the last one.
"""

import tensorflow as tf

tf.logging.set_verbosity(tf.logging.ERROR)
RATE = 0.1


def averages(x, y):
    """Batch normalization, a counter, and averages of the new weights."""
    step = tf.train.get_or_create_global_step()
    calls = tf.get_variable("calls", initializer=0.0, trainable=False)
    hidden = tf.layers.batch_normalization(tf.layers.dense(x, 5), training=True)
    loss = tf.reduce_mean((tf.layers.dense(tf.nn.relu(hidden), 1)[:, 0] - y) ** 2)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        update = tf.train.GradientDescentOptimizer(RATE).minimize(loss, step)
    average = tf.train.ExponentialMovingAverage(0.9, num_updates=step)
    with tf.control_dependencies([update, tf.assign_add(calls, 1.0)]):
        return [average.apply(tf.trainable_variables())], [loss]


def recurrent(x, y):
    """A functional loop."""
    tf.enable_control_flow_v2()
    steps = tf.stack([x, x + 1.0, x * 2.0], 1)
    cell = tf.nn.rnn_cell.BasicLSTMCell(4)
    outputs, _ = tf.nn.dynamic_rnn(cell, steps, dtype=tf.float32)
    loss = tf.reduce_mean((tf.layers.dense(outputs[:, -1], 1)[:, 0] - y) ** 2)
    return [tf.train.GradientDescentOptimizer(RATE).minimize(loss)], [loss]


def adversarial(x, y):
    """A generator and a critic, trained in turn."""
    with tf.variable_scope("generator"):
        made = tf.layers.dense(tf.layers.dense(x, 4, tf.nn.tanh), 1, name="made")

    def critic(value):
        with tf.variable_scope("critic", reuse=tf.AUTO_REUSE):
            return tf.layers.dense(tf.layers.dense(value, 4, tf.nn.tanh), 1)

    real, fake = critic(y[:, None]), critic(made)
    critic_loss = tf.reduce_mean(tf.nn.softplus(-real) + tf.nn.softplus(fake))
    generator_loss = tf.reduce_mean(tf.nn.softplus(-fake))
    optimizer = tf.train.GradientDescentOptimizer(RATE)
    operations = [
        optimizer.minimize(loss, var_list=tf.trainable_variables(scope), name=name)
        for loss, scope, name in (
            (critic_loss, "critic", "train_critic"),
            (generator_loss, "generator", "train_generator"),
        )
    ]
    return operations, [critic_loss, generator_loss]


def actor_critic(x, y):
    """Two networks by two losses in one run, the train ops waiting for each other."""
    with tf.variable_scope("actor"):
        action = tf.layers.dense(tf.layers.dense(x, 4, tf.nn.tanh), 1)

    def critic(scope, value):
        with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
            hidden = tf.layers.dense(tf.concat([x, value], 1), 4, tf.nn.tanh)
            return tf.layers.dense(hidden, 1)[:, 0]

    actor_loss = -tf.reduce_mean(critic("critic", action))
    target = tf.stop_gradient(0.9 * critic("target", action) + y)
    critic_loss = tf.reduce_mean((critic("critic", y[:, None]) - target) ** 2)
    act = tf.train.AdamOptimizer(RATE).minimize(
        actor_loss, var_list=tf.trainable_variables("actor")
    )
    own = tf.trainable_variables("critic")
    with tf.control_dependencies([act]):
        judge = tf.train.AdamOptimizer(RATE).minimize(critic_loss, var_list=own)
    with tf.control_dependencies([judge]):
        pairs = zip(own, tf.trainable_variables("target"))
        averages = [tf.assign(old, 0.9 * old + 0.1 * new) for new, old in pairs]
    return [tf.group(*averages, name="step")], [actor_loss]


def autoencoder(x, y):
    """An encoder that two losses train in turn, each with an optimizer of its own."""
    with tf.variable_scope("encoder"):
        code = tf.layers.dense(x, 2, tf.nn.tanh)
    rebuilt = tf.reduce_mean((tf.layers.dense(code, 3) - x) ** 2)
    placed = tf.reduce_mean((code - y[:, None]) ** 2)
    own = tf.trainable_variables("encoder")
    rebuild = tf.train.AdamOptimizer(RATE).minimize(rebuilt)
    place = tf.train.AdamOptimizer(RATE / 2, 0.5).minimize(placed, var_list=own)
    return [rebuild, place], [rebuilt, placed]


def main(arrays, args):
    """See above."""
    tf.set_random_seed(5)
    x = tf.placeholder(tf.float32, [None, 3], "x")
    y = tf.placeholder(tf.float32, [None], "y")
    operations, losses = globals()[args["kind"]](x, y)
    for operation in operations:
        tf.add_to_collection("train_op", operation)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, args["prefix"])
        feeds = {x: arrays["x"], y: arrays["y"]}
        found = {f"loss{i}": [] for i in range(len(losses))}
        for _ in range(args["steps"]):
            for i, (operation, loss) in enumerate(zip(operations, losses)):
                value = session.run([loss, operation], feeds)[0]
                found[f"loss{i}"].append(value)
        found.update(
            ("after/" + v.op.name, session.run(v)) for v in tf.global_variables()
        )
        found["operations"] = [operation.name for operation in operations]
        found["losses"] = [loss.name for loss in losses]
    return found
