"""Finds what goes beside inputs and outputs: updates, penalties, open placeholders."""

from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.state import State

_UPDATES = "update_ops"
_REGULARIZATION = "regularization_losses"


def find_updates(state: State) -> None:
    """Fills in the updates that a training step of Keras has to run.

    Args:
        state: The inference.
    """
    for name in _listed_updates(state) or _updates_of_train_op(state):
        if _runs_on_inputs(state, name):
            state.result.updates.append(name)
        else:
            state.result.alternatives.setdefault("updates", []).append(name)


def find_regularization(state: State) -> None:
    """Fills in the regularization losses.

    Args:
        state: The inference.
    """
    for name in state.collections.get(_REGULARIZATION):
        if _runs_on_inputs(state, name):
            state.result.losses.append(name)
            state.because(name, f"collection {_REGULARIZATION!r} names it")


def find_unfed(state: State) -> None:
    """Fills in the placeholders that nothing gives a value.

    Args:
        state: The inference.
    """
    result = state.result
    fed = {
        *state.parsed(result.inputs.values()),
        *state.parsed(result.labels.values()),
        *state.aside,
    }
    outputs = state.parsed(result.outputs.values())
    step = [TensorName(name) for name in result.train_op] + state.losses[:1]
    for roots, what in ((outputs, "the outputs need"), (step, "a training step needs")):
        for feed in state.needed(roots, fed):
            name = str(feed.tensor)
            if feed.kind == "default" or name in result.unfed:
                continue
            result.unfed.append(name)
            if roots is outputs:
                result.unfed_outputs.append(name)
            rate = naming.is_learning_rate(feed.tensor.node)
            result.reasons[name] = (
                f"{what} it{', it seems to be a learning rate' if rate else ''}; "
                "nothing says its value: give it with feeds="
            )


def drop_unneeded(state: State) -> None:
    """Forgets training values that nothing needs.

    Args:
        state: The inference.
    """
    result = state.result
    roots = [
        *state.parsed(result.outputs.values()),
        *state.parsed(result.train_op),
        *state.parsed(result.updates),
        *state.losses,
    ]
    names = state.analysis.ancestors(roots)
    given = {*state.given.training_values, *state.given.constants}
    for tensor in state.aside - given:
        if tensor.node not in names:
            del result.training_values[str(tensor)]
            result.reasons.pop(str(tensor), None)
            result.warnings = [w for w in result.warnings if f"'{tensor}'" not in w]


def _listed_updates(state: State) -> list[str]:
    listed = state.collections.get(_UPDATES)
    for name in listed:
        state.because(name, f"collection {_UPDATES!r} names it")
    return listed


def _updates_of_train_op(state: State) -> list[str]:
    """Writes of untrained variables that follow the inputs: moving averages."""
    analysis = state.analysis
    users = analysis.tensor_users
    following = analysis.reach(
        user.name
        for tensor in state.parsed(state.result.inputs.values())
        for user in users.get(tensor, [])
    )
    run = analysis.ancestors(state.parsed(state.result.train_op))
    found = [
        name
        for name, variable in analysis.writes.items()
        if name in run & following
        and name not in state.training.after
        and variable not in analysis.trained
    ]
    for name in found:
        state.because(name, "the train op runs it, and it follows the inputs")
    return found


def _runs_on_inputs(state: State, name: str) -> bool:
    """Whether an operation needs no data but inputs and training values."""
    fed = {*state.parsed(state.result.inputs.values()), *state.aside}
    needed = state.needed([TensorName.parse(name)], fed)
    return all(feed.kind == "default" for feed in needed)
