"""Chooses the loss and the train op of a graph."""

from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.state import State
from keras_metagraph.loading.infer.updates import TrainingStep

_LOSS_COLLECTIONS = ("total_loss", "losses", "loss")


def find_training_step(state: State) -> None:
    """Fills in train op and loss.

    The caller's names win. The train op is then what a collection names, else what the
    graph's structure tells; the loss is what its gradients are gradients of.

    Args:
        state: The inference.
    """
    step = _choose_step(state)
    if step is not None:
        state.result.train_op = list(step.operations)
        state.losses = list(step.losses)
    if state.given.loss is not None:
        state.losses = [state.given.loss]
        state.because(state.given.loss, state.given.reason("loss"))
    elif not state.losses:
        state.losses = _losses_by_name(state)
    _choose_loss(state)


def _choose_step(state: State) -> TrainingStep | None:
    """The training step: the caller's, a collection's, or the graph's only one."""
    if state.given.train_op is not None:
        for name in state.given.train_op:
            state.because(name, state.given.reason("train_op"))
        step = state.training.step(state.given.train_op)
        state.steps = [step] if step.variables else []
        return step
    steps, how = _listed_steps(state), "a collection names it"
    if not steps:
        steps = state.training.steps()
        how = "runs the updates of the trained variables, and nothing waits for it"
    state.steps = steps
    if len(steps) > 1:
        steps = _covering(steps) or _together(state, steps) or _ambiguous(state, steps)
    if not steps:
        return None
    for name in steps[0].operations:
        state.because(name, how)
    return steps[0]


def _listed_steps(state: State) -> list[TrainingStep]:
    """The steps that collections name; those that train, if some do."""
    names = dict.fromkeys(
        TensorName.parse(member).node
        for collection, members in state.collections.members.items()
        if naming.is_train_collection(collection)
        for member in members
    )
    training = state.training
    steps = [
        training.step(training.wrapped([name]))
        for name in training.outermost(list(names))
    ]
    trains = [step for step in steps if step.variables]
    return training.joined(trains) or ([] if training.updates else steps)


def _covering(steps: list[TrainingStep]) -> list[TrainingStep]:
    """The step that trains all that the others train, if there is one."""
    best = max(steps, key=lambda step: len(step.variables))
    rest = [step for step in steps if step is not best]
    return [best] if all(step.variables < best.variables for step in rest) else []


def _together(state: State, steps: list[TrainingStep]) -> list[TrainingStep]:
    """The step that runs all the others, where the user grouped them."""
    operations = [name for step in steps for name in step.operations]
    outer = state.training.wrapped(operations)
    return [state.training.step(outer)] if len(outer) == 1 else []


def _ambiguous(state: State, steps: list[TrainingStep]) -> list[TrainingStep]:
    """Takes no step of several, and says so."""
    operations = [name for step in steps for name in step.operations]
    state.result.alternatives["train_op"] = operations
    state.result.warnings.append(
        f"the graph has {len(steps)} training steps ({', '.join(operations)}): none is "
        "taken; name one with train_op="
    )
    state.losses = list(dict.fromkeys(loss for step in steps for loss in step.losses))
    return []


def _losses_by_name(state: State) -> list[TensorName]:
    """Losses of a graph without a training step: by collections, gradients, names."""
    for collection in _LOSS_COLLECTIONS:
        tensors = state.parsed(state.collections.get(collection))
        for tensor in tensors:
            state.because(tensor, f"collection {collection!r} names it")
        if tensors:
            return list(dict.fromkeys(tensors))
    found = [loss for losses in state.training.losses.values() for loss in losses]
    if found:
        return list(dict.fromkeys(found))
    named = [
        TensorName(name)
        for name in state.analysis.graph.nodes
        if naming.is_plain_loss(name) and _is_lone_scalar(state, TensorName(name))
    ]
    for tensor in named:
        state.because(tensor, "is called so, and is a number that nothing uses")
    return named


def _is_lone_scalar(state: State, tensor: TensorName) -> bool:
    dtype = state.analysis.dtype(tensor)
    return (
        state.analysis.rank(tensor) == 0
        and dtype is not None
        and dtype.is_floating
        and bool(state.analysis.graph.nodes[tensor.node].inputs)
        and all(
            state.analysis.is_summary(user)
            for user in state.analysis.users[tensor.node]
        )
    )


def _choose_loss(state: State) -> None:
    if not state.losses:
        return
    loss = state.losses[0]
    if len(state.losses) > 1:
        names = [str(loss) for loss in state.losses]
        state.result.alternatives["loss"] = names
        if not state.result.train_op:
            if "train_op" not in state.result.alternatives:
                state.result.warnings.append(
                    f"the graph has several losses ({', '.join(names)}): none is "
                    "taken; name one with loss="
                )
            return
        loss = _total(state) or loss
        state.result.warnings.append(
            f"the train op minimizes several losses ({', '.join(names)}): {loss} is "
            "reported"
        )
    named = _named_copy(state, loss)
    state.because(named, "the gradients of the training step are its gradients")
    state.result.loss = str(named)


def _total(state: State) -> TensorName | None:
    """What is computed from all losses, for somebody to look at."""
    analysis = state.analysis
    after = [analysis.reach([loss.node]) for loss in state.losses]
    common = set.intersection(*after) - state.training.after
    totals = [TensorName(name) for name in analysis.graph.nodes if name in common]
    return next((t for t in totals if _is_lone_scalar(state, t)), None)


def _named_copy(state: State, loss: TensorName) -> TensorName:
    """The same value under the name that the user gave it, if there is one."""
    if naming.is_loss(loss.node):
        return loss
    for user in state.analysis.tensor_users.get(loss, []):
        copied = user.op == "Identity" and user.name not in state.training.after
        if copied and naming.is_loss(user.name):
            return TensorName(user.name)
    return loss
