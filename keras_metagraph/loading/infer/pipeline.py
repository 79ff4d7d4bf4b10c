"""Infers the interface of a graph: what the caller named, and the rest."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_metagraph.graph.ir import Graph, TensorName
from keras_metagraph.graph.passes.repair_attributes import repair_attributes
from keras_metagraph.graph.variables import GraphVariable
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.arguments import Given, Names, check_arguments
from keras_metagraph.loading.infer.collections import NodeCollections, read_collections
from keras_metagraph.loading.infer.feeds import Feed, find_feeds
from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.outputs import OutputFinder
from keras_metagraph.loading.infer.roles import Roles
from keras_metagraph.loading.infer.signatures import (
    Signature,
    choose_signature,
    read_signatures,
)
from keras_metagraph.loading.infer.switches import (
    TrainingValue,
    find_training_values,
    flag_values,
)
from keras_metagraph.loading.infer.updates import Training, TrainingStep

_UPDATES = "update_ops"
_REGULARIZATION = "regularization_losses"
_LOSSES = ("total_loss", "losses", "loss")


def infer_interface(
    meta_graph_def: Any,
    graph: Graph,
    variables: Mapping[str, GraphVariable],
    *,
    inputs: Names | None = None,
    outputs: Names | None = None,
    labels: Names | None = None,
    loss: str | None = None,
    train_op: str | Sequence[str] | None = None,
    training_flag: str | Sequence[str] | Mapping[str, Any] | None = None,
    feeds: Mapping[str, Any] | None = None,
    signature: str | None = None,
) -> Interface:
    """Finds what a user of a graph would have named.

    What the caller names wins. The rest comes, in this order of trust, from a
    signature, from collections, from the structure of the training step, and from how
    placeholders are used. Nothing is run.

    Args:
        meta_graph_def: The MetaGraph.
        graph: Its graph.
        variables: Its variables by node name.
        inputs: Tensor names by input name, or a list of tensor names.
        outputs: The same for outputs.
        labels: The same for what is fed with the labels.
        loss: Name of the loss tensor.
        train_op: Names of the operations that one training step runs.
        training_flag: The placeholder that says whether the graph trains, several of
            them, or a pair of values (when training, otherwise) by placeholder.
        feeds: Constants to feed always, by tensor name.
        signature: Name of the signature to take inputs and outputs from.

    Returns:
        The interface, with a reason for everything that was chosen.

    Raises:
        SignatureError: If names of the caller are not in the graph; lists all of them.

    Example:
        ```python
        interface = infer_interface(meta_graph_def, graph, variables)
        interface.inputs, interface.outputs  # {"x": "x:0"}, {"logits": "logits:0"}
        ```
    """
    graph = repair_attributes(graph).graph
    given = check_arguments(
        graph,
        inputs=inputs,
        outputs=outputs,
        labels=labels,
        loss=loss,
        train_op=train_op,
        training_flag=training_flag,
        feeds=feeds,
    )
    signatures = read_signatures(meta_graph_def, graph)
    chosen = choose_signature(signatures, signature)
    inference = _Inference(meta_graph_def, GraphAnalysis(graph, variables), given)
    if chosen is not None:
        inference.take_signature(chosen)
    for entry in signatures.values():
        inference.result.dropped.extend(entry.missing)
    return inference.run()


class _Inference:
    """One inference: the steps fill the result, in their order."""

    def __init__(
        self, meta_graph_def: Any, analysis: GraphAnalysis, given: Given
    ) -> None:
        self.result = Interface()
        self._analysis = analysis
        self._given = given
        self._collections: NodeCollections = read_collections(
            meta_graph_def, analysis.graph
        )
        self._training = Training(analysis)
        self._saver = meta_graph_def.saver_def.filename_tensor_name
        self._signature_inputs: dict[str, TensorName] = {}
        self._signature_outputs: dict[str, TensorName] = {}
        self._losses: list[TensorName] = []
        self._steps: list[TrainingStep] = []
        self.result.dropped.extend(self._collections.dangling)

    def take_signature(self, signature: Signature) -> None:
        """Takes what a signature says, where the caller said nothing."""
        self.result.signature = signature.name
        outputs = dict(signature.outputs)
        if signature.is_supervised:
            loss = outputs.pop("loss", None)
            if self._given.loss is None and loss is not None:
                self._given.loss = loss
                self._because(loss, f"the loss of signature {signature.name!r}")
            outputs = _predictions(outputs)
        self._signature_inputs = dict(signature.inputs)
        self._signature_outputs = outputs

    def run(self) -> Interface:
        """Runs all steps."""
        self._find_training_step()
        feeds = self._find_feeds()
        self._find_training_values(feeds)
        roles = self._find_roles(feeds)
        self._find_outputs(roles)
        self._find_inputs_and_labels(roles)
        self._find_updates_and_losses(roles)
        self._find_unfed(roles)
        self._drop_unneeded()
        return self.result

    # Loss and train op.

    def _find_training_step(self) -> None:
        step = self._step()
        if step is not None:
            self.result.train_op = list(step.operations)
            self._losses = list(step.losses)
        if self._given.loss is not None:
            self._losses = [self._given.loss]
            self._because(self._given.loss, "named by the caller")
        elif not self._losses:
            self._losses = self._losses_by_name()
        self._choose_loss()

    def _step(self) -> TrainingStep | None:
        """The training step: the caller's, a collection's, or the graph's only one."""
        if self._given.train_op is not None:
            for name in self._given.train_op:
                self._because(name, "named by the caller")
            return self._training.step(self._given.train_op)
        listed = [
            TensorName.parse(name).node
            for collection, members in self._collections.members.items()
            if naming.is_train_collection(collection)
            for name in members
        ]
        steps = [
            self._training.step([self._training.wrapped(name)])
            for name in self._training.outermost(list(dict.fromkeys(listed)))
        ]
        how = "a collection names it"
        if not steps:
            steps = self._training.steps()
            how = "runs the updates of all trained variables, and nothing waits for it"
        self._steps = steps
        if len(steps) > 1:
            steps = _covering(steps) or self._ambiguous(steps)
        if not steps:
            return None
        for name in steps[0].operations:
            self._because(name, how)
        return steps[0]

    def _ambiguous(self, steps: list[TrainingStep]) -> list[TrainingStep]:
        operations = [name for step in steps for name in step.operations]
        self.result.alternatives["train_op"] = operations
        self.result.warnings.append(
            f"the graph has {len(steps)} training steps of different variables "
            f"({', '.join(operations)}): none is taken; name one with train_op="
        )
        losses = dict.fromkeys(loss for step in steps for loss in step.losses)
        self._losses = list(losses)
        return []

    def _losses_by_name(self) -> list[TensorName]:
        """Losses of a graph that has no training step: those of collections."""
        for collection in _LOSSES:
            tensors = [TensorName.parse(n) for n in self._collections.get(collection)]
            if tensors:
                for tensor in tensors:
                    self._because(tensor, f"collection {collection!r} names it")
                return list(dict.fromkeys(tensors))
        if self._training.losses:
            return [loss for found in self._training.losses.values() for loss in found]
        named = [
            TensorName(name)
            for name in self._analysis.graph.nodes
            if naming.is_plain_loss(name) and self._is_lone_scalar(name)
        ]
        for tensor in named:
            self._because(tensor, "is called so, and is a scalar that nothing uses")
        return named

    def _is_lone_scalar(self, name: str) -> bool:
        dtype = self._analysis.dtype(TensorName(name))
        return (
            self._analysis.rank(TensorName(name)) == 0
            and dtype is not None
            and dtype.is_floating
            and bool(self._analysis.graph.nodes[name].inputs)
            and not any(
                not self._analysis.is_summary(user)
                for user in self._analysis.users[name]
            )
        )

    def _choose_loss(self) -> None:
        if not self._losses:
            return
        loss = self._losses[0]
        if len(self._losses) > 1:
            names = [str(loss) for loss in self._losses]
            self.result.alternatives["loss"] = names
            if not self.result.train_op:
                self.result.warnings.append(
                    f"the graph has several losses ({', '.join(names)}): none is "
                    "taken; name one with loss="
                )
                return
            self.result.warnings.append(
                f"the train op minimizes several losses ({', '.join(names)}): "
                f"{loss} is reported"
            )
        named = self._named_copy(loss)
        self._because(named, "the gradients of the training step are its gradients")
        self.result.loss = str(named)

    def _named_copy(self, loss: TensorName) -> TensorName:
        """The same value under the name that the user gave it, if there is one."""
        for user in self._analysis.tensor_users.get(loss, []):
            if user.op == "Identity" and user.name not in self._training.after:
                if naming.is_loss(user.name) and not naming.is_loss(loss.node):
                    return TensorName(user.name)
        return loss

    # Feeds.

    def _find_feeds(self) -> list[Feed]:
        feeds = find_feeds(self._analysis, self._saver)
        known = {feed.tensor for feed in feeds}
        named = [*self._given.fed, *self._signature_inputs.values()]
        for tensor in dict.fromkeys(named):
            if tensor not in known:
                rank, dtype = self._analysis.rank(tensor), self._analysis.dtype(tensor)
                feeds.append(Feed(tensor, "pipeline", rank, dtype))
        return feeds

    def _find_training_values(self, feeds: list[Feed]) -> None:
        taken = {
            *(self._given.inputs or {}).values(),
            *(self._given.labels or {}).values(),
        }
        values = self.result.training_values
        for tensor, constant in self._given.constants.items():
            values[str(tensor)] = (constant, constant)
            self._because(tensor, "the caller feeds it with a constant")
        for tensor, pair in self._given.training_values.items():
            values[str(tensor)] = pair or flag_values(self._analysis, tensor)
            self._because(tensor, "named by the caller")
        for found in find_training_values(self._analysis, feeds):
            if found.tensor not in taken and str(found.tensor) not in values:
                self._take_training_value(found)

    def _take_training_value(self, found: TrainingValue) -> None:
        self.result.training_values[str(found.tensor)] = found.values
        self._because(found.tensor, found.reason)
        if found.warning:
            self.result.warnings.append(found.warning)

    def _find_roles(self, feeds: list[Feed]) -> Roles:
        given = self._given
        return Roles(
            self._analysis,
            feeds,
            [TensorName.parse(name) for name in self.result.training_values],
            self._losses,
            self._training.after,
            self._trained(),
            labels=None if given.labels is None else list(given.labels.values()),
            inputs=None if given.inputs is None else list(given.inputs.values()),
        )

    def _trained(self) -> frozenset[str]:
        """The variables that the training steps change; all trainable ones if none."""
        written = [step.variables for step in self._steps]
        return frozenset().union(*written) or self._analysis.trained

    def _networks(self) -> list[Collection[str]]:
        """Groups of variables that are trained apart, if the graph has several."""
        if len(self._steps) > 1:
            return [step.variables for step in self._steps]
        if len(self._losses) < 2:
            return []
        scopes: dict[str, set[str]] = {}
        for name in self._analysis.trained:
            scopes.setdefault(name.partition("/")[0], set()).add(name)
        return list(scopes.values())

    # Outputs, inputs, labels.

    def _find_outputs(self, roles: Roles) -> None:
        finder = OutputFinder(
            self._analysis, self._training, roles, self._losses, self._networks()
        )
        if self._given.outputs is not None:
            chosen, how = self._given.outputs, "named by the caller"
        elif self._signature_outputs:
            chosen = self._signature_outputs
            how = f"output of signature {self.result.signature!r}"
        else:
            self._infer_outputs(finder)
            return
        for key, tensor in chosen.items():
            self.result.outputs[key.replace("/", "_")] = str(tensor)
            self._because(tensor, how)

    def _infer_outputs(self, finder: OutputFinder) -> None:
        named: dict[str, str] = {}
        for collection, members in self._collections.of_users().items():
            for member in members:
                tensor = TensorName.parse(member)
                if ":" in member and finder.is_prediction(tensor):
                    if len(members) == 1:
                        named[member] = collection
                    elif naming.is_output(collection):
                        named.setdefault(member, "")
        found = finder.find(TensorName.parse(name) for name in named)
        for tensor, reason in found.items():
            self._because(tensor, reason)
        given = {name: key for name, key in named.items() if key}
        self.result.outputs = naming.output_keys(self._analysis.graph, found, given)
        others = [str(tensor) for tensor in finder.others(found)]
        if others:
            self.result.alternatives["outputs"] = others
        if not found:
            self.result.reasons["outputs"] = "nothing in the graph depends on an input"

    def _find_inputs_and_labels(self, roles: Roles) -> None:
        aside = {TensorName.parse(name) for name in self.result.training_values}
        outputs = [TensorName.parse(name) for name in self.result.outputs.values()]
        needed = self._needed(outputs, roles, aside)
        if self._given.inputs is not None:
            inputs, how = dict(self._given.inputs), "named by the caller"
        elif self._signature_inputs:
            inputs = {
                key.replace("/", "_"): tensor
                for key, tensor in self._signature_inputs.items()
                if tensor not in aside
            }
            how = f"input of signature {self.result.signature!r}"
            if self._losses:  # a supervised signature has the labels too
                losing = self._needed(self._losses, roles, aside)
                inputs = {
                    key: tensor
                    for key, tensor in inputs.items()
                    if tensor in needed or tensor not in losing
                }
        else:
            data = self._data(needed, roles, "outputs")
            inputs = _parsed(naming.input_keys(data, self._aliases(roles)))
            how = "the outputs need it"
        for key, tensor in inputs.items():
            self.result.inputs[key] = str(tensor)
            self._because(tensor, how)
        self._find_labels(roles, aside | set(inputs.values()))

    def _find_labels(self, roles: Roles, fed: set[TensorName]) -> None:
        if self._given.labels is not None:
            labels, how = dict(self._given.labels), "named by the caller"
        else:
            needed = self._needed(self._losses, roles, fed)
            keys = {t: k for k, t in self._signature_inputs.items()}
            data = self._data(needed, roles, "loss")
            named = {keys[t].replace("/", "_"): t for t in data if t in keys}
            rest = [tensor for tensor in data if tensor not in keys]
            labels = named | _parsed(naming.input_keys(rest, self._aliases(roles)))
            how = "the loss needs it, the outputs do not"
        for key, tensor in labels.items():
            self.result.labels[key] = str(tensor)
            self._because(tensor, how)

    def _aliases(self, roles: Roles) -> dict[TensorName, str]:
        """The names that a graph gives to what comes out of its input pipeline."""
        aliases = {}
        for feed in roles.feeds:
            users = [
                user
                for user in self._analysis.tensor_users.get(feed.tensor, [])
                if not self._analysis.is_summary(user)
            ]
            if feed.kind == "pipeline" and len(users) == 1 and (
                users[0].op == "Identity"
                and not naming.is_generic(self._analysis.graph, users[0].name)
            ):
                aliases[feed.tensor] = users[0].name.rpartition("/")[2]
        return aliases

    def _needed(
        self, roots: Sequence[TensorName], roles: Roles, fed: set[TensorName]
    ) -> list[TensorName]:
        """The feeds, beside those in `fed`, that must have values for `roots`."""
        stops = {feed.tensor for feed in roles.feeds if feed.kind != "default"} | fed
        stops |= self._replaced(roles)
        names = self._analysis.ancestors(roots, stops)
        users = self._analysis.tensor_users
        wanted = set(roots)
        return [
            feed.tensor
            for feed in roles.feeds
            if feed.tensor not in fed
            and (
                feed.tensor in wanted
                or feed.tensor.node in names
                or any(user.name in names for user in users.get(feed.tensor, []))
            )
        ]

    def _replaced(self, roles: Roles) -> set[TensorName]:
        """Placeholders whose default is what a pipeline gives: they are the inputs."""
        pipelines = 0
        for place, feed in enumerate(roles.feeds):
            pipelines |= (feed.kind == "pipeline") << place
        return {
            feed.tensor
            for feed in roles.feeds
            if feed.kind == "default"
            and roles.dependence.node(feed.tensor.node) & pipelines
        }

    def _data(
        self, needed: Sequence[TensorName], roles: Roles, what: str
    ) -> list[TensorName]:
        """Which of the needed feeds are data; notes the others."""
        feeds = {feed.tensor: feed for feed in roles.feeds}
        replaced = self._replaced(roles)
        data = [t for t in needed if feeds[t].kind != "default" or t in replaced]
        if not data and what == "outputs":
            data = [t for t in needed if feeds[t].rank != 0] or list(needed)
        several = [tensor for tensor in data if feeds[tensor].rank != 0]
        if not several or len(several) == len(data):
            return data
        for tensor in data:
            if feeds[tensor].rank == 0:
                self._because(tensor, f"a number that the {what} need")
        return several

    # What goes beside.

    def _find_updates_and_losses(self, roles: Roles) -> None:
        for name in self._update_operations():
            if self._runs_on_inputs(name, roles):
                self.result.updates.append(name)
            else:
                self.result.alternatives.setdefault("updates", []).append(name)
        for name in self._collections.get(_REGULARIZATION):
            if self._runs_on_inputs(name, roles):
                self.result.losses.append(name)
                self._because(name, "regularization loss")

    def _update_operations(self) -> list[str]:
        listed = self._collections.get(_UPDATES)
        for name in listed:
            self._because(name, "collection 'update_ops' names it")
        if listed or not self.result.train_op:
            return listed
        found = self._updates_of_train_op()
        for name in found:
            self._because(name, "the train op runs it, and it follows the inputs")
        return found

    def _updates_of_train_op(self) -> list[str]:
        """Writes of untrained variables that follow the inputs: moving averages."""
        fed = {TensorName.parse(name) for name in self.result.inputs.values()}
        following = self._analysis.reach(
            user.name
            for tensor in fed
            for user in self._analysis.tensor_users.get(tensor, [])
        )
        run = self._analysis.ancestors(TensorName(n) for n in self.result.train_op)
        return [
            name
            for name, variable in self._analysis.writes.items()
            if name in run
            and name in following
            and name not in self._training.after
            and variable not in self._analysis.trained
        ]

    def _runs_on_inputs(self, name: str, roles: Roles) -> bool:
        """Whether an operation needs no data but inputs and training values."""
        fed = {
            TensorName.parse(tensor)
            for tensor in (*self.result.inputs.values(), *self.result.training_values)
        }
        kinds = {feed.tensor: feed.kind for feed in roles.feeds}
        needed = self._needed([TensorName.parse(name)], roles, fed)
        return all(kinds[tensor] == "default" for tensor in needed)

    def _find_unfed(self, roles: Roles) -> None:
        fed = {
            TensorName.parse(name)
            for name in (
                *self.result.inputs.values(),
                *self.result.labels.values(),
                *self.result.training_values,
            )
        }
        kinds = {feed.tensor: feed.kind for feed in roles.feeds}
        outputs = [TensorName.parse(name) for name in self.result.outputs.values()]
        step = [TensorName(name) for name in self.result.train_op] + self._losses[:1]
        for roots, what in ((outputs, "outputs"), (step, "training step")):
            for tensor in self._needed(roots, roles, fed):
                if kinds[tensor] == "default" or str(tensor) in self.result.unfed:
                    continue
                self.result.unfed.append(str(tensor))
                if what == "outputs":
                    self.result.unfed_outputs.append(str(tensor))
                rate = naming.is_learning_rate(tensor.node)
                self.result.reasons[str(tensor)] = (
                    f"the {what} need{'s' if what != 'outputs' else ''} it"
                    f"{', a learning rate' if rate else ''}; nobody knows its value: "
                    "give it with feeds="
                )

    def _drop_unneeded(self) -> None:
        """Forgets training values that nothing needs."""
        roots = [
            *map(TensorName.parse, self.result.outputs.values()),
            *map(TensorName, self.result.train_op),
            *map(TensorName.parse, self.result.updates),
            *self._losses,
        ]
        names = self._analysis.ancestors(roots)
        kept = {*map(str, self._given.training_values), *map(str, self._given.constants)}
        for name in list(self.result.training_values):
            if TensorName.parse(name).node not in names and name not in kept:
                del self.result.training_values[name]
                self.result.reasons.pop(name, None)
                self.result.warnings = [
                    text for text in self.result.warnings if repr(name) not in text
                ]

    def _because(self, name: TensorName | str, reason: str) -> None:
        self.result.reasons.setdefault(str(name), reason)


def _covering(steps: list[TrainingStep]) -> list[TrainingStep]:
    """The step that trains all that the others train, if there is one."""
    best = max(steps, key=lambda step: len(step.variables))
    rest = [step for step in steps if step is not best]
    if all(step.variables < best.variables for step in rest):
        return [best]
    return []


def _predictions(outputs: Mapping[str, TensorName]) -> dict[str, TensorName]:
    """The predictions among the outputs of a supervised signature."""
    prefix = "predictions/"
    found = {
        key.removeprefix(prefix): tensor
        for key, tensor in outputs.items()
        if key.startswith(prefix)
    }
    return found or {
        key: tensor for key, tensor in outputs.items() if not key.startswith("metrics/")
    }


def _parsed(names: Mapping[str, str]) -> dict[str, TensorName]:
    return {key: TensorName.parse(name) for key, name in names.items()}
