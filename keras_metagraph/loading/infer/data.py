"""Finds what goes into a graph and what comes out of it."""

from collections.abc import Collection, Iterable, Mapping

from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.feeds import Feed
from keras_metagraph.loading.infer.outputs import OutputFinder
from keras_metagraph.loading.infer.predictions import Predictions
from keras_metagraph.loading.infer.roles import Roles
from keras_metagraph.loading.infer.state import State
from keras_metagraph.loading.infer.switches import find_training_values, flag_values


def find_training_flags(state: State) -> None:
    """Fills in what is fed according to whether the graph trains, and constants.

    Args:
        state: The inference.
    """
    given, values = state.given, state.result.training_values
    for tensor, constant in given.constants.items():
        values[str(tensor)] = (constant, constant)
        state.because(tensor, "the caller feeds it with a constant")
    taken = {*(given.inputs or {}).values(), *(given.labels or {}).values()}
    recognized = {
        found.tensor: found
        for found in find_training_values(state.analysis, state.feeds)
        if found.tensor not in taken
    }
    for tensor, pair in given.training_values.items():
        found = recognized.get(tensor)
        fallback = found.values if found else flag_values(state.analysis, tensor)
        values[str(tensor)] = pair or fallback
        state.because(tensor, given.reason("training_flag"))
    for tensor, found in recognized.items():
        if str(tensor) not in values:
            values[str(tensor)] = found.values
            state.because(tensor, found.reason)
            state.result.warnings.extend([found.warning] if found.warning else [])


def find_roles(state: State) -> None:
    """Tells inputs from labels, as far as outputs must not depend on labels.

    Args:
        state: The inference.
    """
    given = state.given
    state.roles = Roles(
        state.analysis,
        state.feeds,
        state.aside,
        state.losses,
        state.training.after,
        _trained(state),
        labels=None if given.labels is None else list(given.labels.values()),
        inputs=None if given.inputs is None else list(given.inputs.values()),
    )


def find_outputs(state: State) -> None:
    """Fills in the outputs: the caller's, the signature's, or inferred ones.

    Args:
        state: The inference.
    """
    if state.given.outputs is not None:
        chosen, how = state.given.outputs, state.given.reason("outputs")
    elif state.signature is not None:
        chosen = state.signature.predictions
        how = f"output of signature {state.signature.name!r}"
    else:
        chosen = {}
    if not chosen:
        _infer_outputs(state)
        if not state.result.outputs and state.signature is not None:
            chosen = state.signature.outputs  # a loss is better than nothing
    for key, tensor in chosen.items():
        state.result.outputs[key.replace("/", "_")] = str(tensor)
        state.because(tensor, how)


def find_inputs(state: State) -> None:
    """Fills in the inputs: the caller's, the signature's, or what the outputs need.

    Args:
        state: The inference.
    """
    needed = state.needed(state.parsed(state.result.outputs.values()), state.aside)
    if state.given.inputs is not None:
        inputs, how = dict(state.given.inputs), state.given.reason("inputs")
    elif _signature_fits(state, needed):
        inputs = _signature_inputs(state, needed)
        how = f"input of signature {state.result.signature!r}"
    else:
        data = _data(state, needed) or _optional(needed)
        inputs, how = _keyed(state, data), "the outputs need it"
    for key, tensor in inputs.items():
        state.result.inputs[key] = str(tensor)
        state.because(tensor, how)


def find_labels(state: State) -> None:
    """Fills in the labels: the caller's, or what the loss needs beside the inputs.

    Args:
        state: The inference.
    """
    if state.given.labels is not None:
        labels, how = dict(state.given.labels), state.given.reason("labels")
    else:
        fed = {*state.aside, *state.parsed(state.result.inputs.values())}
        data = _data(state, state.needed(state.losses, fed))
        labels, how = _keyed(state, data), "the loss needs it, the outputs do not"
    for key, tensor in labels.items():
        state.result.labels[key] = str(tensor)
        state.because(tensor, how)


def _trained(state: State) -> frozenset[str]:
    """The variables that the training steps change; all trainable ones if none.

    Workers that train asynchronously have a copy of the weights: the losses need the
    copies, and the steps change the weights.
    """
    written = frozenset().union(*(step.variables for step in state.steps))
    needed = state.analysis.ancestors(state.losses)
    return written if written & needed else state.analysis.trained


def _networks(state: State) -> list[Collection[str]]:
    """Groups of variables that are trained apart, if the graph has several."""
    if len(state.steps) > 1:
        return [step.variables for step in state.steps]
    if len(state.losses) < 2:
        return []
    apart = [part for step in state.steps for part in state.training.parts(step)]
    if len(apart) > 1:
        return [part.variables for part in apart]
    behind = [state.analysis.ancestors([loss]) for loss in state.losses]
    if len({frozenset(names & state.analysis.trained) for names in behind}) == 1:
        return []  # replicas of one network
    scopes: dict[str, set[str]] = {}
    for name in sorted(state.analysis.trained):
        scopes.setdefault(name.partition("/")[0], set()).add(name)
    return list(scopes.values())


def _infer_outputs(state: State) -> None:
    predictions = Predictions(state.analysis, state.training, state.roles, state.losses)
    finder = OutputFinder(predictions, _networks(state))
    named = _named_by_collections(state, predictions)
    found = finder.find(TensorName.parse(name) for name in named)
    for tensor, reason in found.items():
        state.because(tensor, reason)
    keys = {name: key for name, key in named.items() if key}
    state.result.outputs = naming.output_keys(state.analysis.graph, found, keys)
    others = [str(tensor) for tensor in finder.others(found)]
    if others:
        state.result.alternatives["outputs"] = others
    if not found:
        state.result.reasons["outputs"] = "nothing in the graph depends on an input"


def _named_by_collections(state: State, predictions: Predictions) -> dict[str, str]:
    """Predictions in collections of users; a single one has the collection's name."""
    named: dict[str, str] = {}
    for collection, members in state.collections.of_users().items():
        outputs = naming.is_output(collection)
        for member in members:
            tensor = TensorName.parse(member)
            if ":" not in member or not predictions.can_be_named(tensor):
                continue
            if tensor.node in state.analysis.in_frames:
                continue
            data = tensor in predictions and not predictions.is_scalar(tensor)
            if predictions.losses and not predictions.is_trained(tensor):
                data = False  # a batch, as `ptb/x`
            if len(members) == 1 and (data or outputs):
                named[member] = collection
            elif outputs:
                named.setdefault(member, "")
    return named


def _signature_fits(state: State, needed: list[Feed]) -> bool:
    """Whether the signature's inputs are all that the outputs need."""
    if state.signature is None:
        return False
    inputs = set(state.signature.inputs.values())
    return state.given.outputs is None or {feed.tensor for feed in needed} <= inputs


def _signature_inputs(state: State, needed: list[Feed]) -> dict[str, TensorName]:
    """The signature's inputs; not the labels that a supervised signature has too."""
    if state.signature is None:
        return {}
    wanted = {feed.tensor for feed in needed}
    losing = {feed.tensor for feed in state.needed(state.losses, state.aside)}
    return {
        key.replace("/", "_"): tensor
        for key, tensor in state.signature.inputs.items()
        if tensor not in state.aside and (tensor in wanted or tensor not in losing)
    }


def _data(state: State, needed: list[Feed]) -> list[TensorName]:
    """Which feeds are data: they have no default, and are no single numbers.

    Numbers that come out of a pipeline are part of its examples: sizes, for example.
    """
    feeds = [
        feed
        for feed in needed
        if feed.kind != "default" or feed.tensor in state.replacing
    ]
    several = [f for f in feeds if f.rank != 0 or f.kind == "pipeline"] or feeds
    return [feed.tensor for feed in several]


def _optional(needed: list[Feed]) -> list[TensorName]:
    """Feeds with defaults, for a graph that has no others."""
    return [f.tensor for f in needed if f.rank != 0] or [f.tensor for f in needed]


def _keyed(state: State, tensors: Iterable[TensorName]) -> dict[str, TensorName]:
    """Keys for feeds: the signature's, what the graph calls them, or their nodes'."""
    signature = state.signature
    keys: Mapping[TensorName, str] = (
        {} if signature is None else {t: k for k, t in signature.inputs.items()}
    )
    aliases = _aliases(state) | {t: k.replace("/", "_") for t, k in keys.items()}
    named = naming.input_keys(tensors, aliases)
    return {key: TensorName.parse(name) for key, name in named.items()}


def _aliases(state: State) -> dict[TensorName, str]:
    """The names that a graph gives to what comes out of its input pipeline."""
    graph, aliases = state.analysis.graph, {}
    for feed in state.feeds:
        users = [
            user
            for user in state.analysis.tensor_users.get(feed.tensor, [])
            if not state.analysis.is_summary(user)
        ]
        if feed.kind != "pipeline" or len(users) != 1 or users[0].op != "Identity":
            continue
        if not naming.is_generic(graph, users[0].name):
            aliases[feed.tensor] = users[0].name.rpartition("/")[2]
    return aliases
