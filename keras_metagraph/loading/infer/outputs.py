"""Chooses the outputs of a graph among its predictions.

Where it has labels, the outputs are what meets them in the loss, and what is computed
from that and used no further. Where it has none, they are what nothing uses, or what
the last weights give.
"""

from collections.abc import Collection, Iterable, Sequence

from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.ends import Ends
from keras_metagraph.loading.infer.heads import (
    between_networks,
    last_weighted,
    met_by_labels,
)
from keras_metagraph.loading.infer.predictions import Predictions
from keras_metagraph.loading.infer.switches import is_training_op

_CLASS_OPS = frozenset({"ArgMax", "Round", "Greater", "GreaterEqual"})


class OutputFinder:
    """Finds the outputs of a graph.

    Args:
        predictions: Its predictions.
        networks: Names of variables that are trained apart, where there are several
            such groups.
    """

    def __init__(
        self, predictions: Predictions, networks: Sequence[Collection[str]] = ()
    ) -> None:
        self._predictions = predictions
        self._networks = networks
        self._ends = Ends(predictions)

    def find(self, given: Iterable[TensorName] = ()) -> dict[TensorName, str]:
        """Finds the outputs, each with the reason.

        Args:
            given: Tensors that collections name.

        Returns:
            The reason by tensor, in the order of the file.
        """
        found = dict.fromkeys(given, "a collection names it")
        if self._predictions.losses:
            found = self._without_questions(self._around_losses()) | found
        elif not found:
            found = self._unused()
        return {tensor: found[tensor] for tensor in self._predictions.sort(found)}

    def others(self, outputs: Collection[TensorName]) -> list[TensorName]:
        """Tensors that nothing uses and that are not among the outputs."""
        return [tensor for tensor in self._ends.all if tensor not in outputs]

    def _around_losses(self) -> dict[TensorName, str]:
        """The outputs of a graph that is trained."""
        met = met_by_labels(self._predictions)
        found = self._with_ends(met or last_weighted(self._predictions))
        if met:
            outputs = [t for t in self._ends.named if naming.is_output(t.node)]
            copies = self._evaluating(outputs, met)
            if copies:
                found = {t: why for t, why in found.items() if not self._is_noisy(t)}
            named = [t for t in outputs if "/" not in t.node or t in copies]
        else:  # what nothing uses says more than what the loss uses
            ends = {t: why for t, why in found.items() if t in set(self._ends.all)}
            found = ends or found
            named = [t for t in self._ends.named if self._predictions.is_trained(t)]
        passed = between_networks(self._predictions, self._networks)
        return (
            dict.fromkeys(passed, "one network gives it to another")
            | found
            | {t: "has a name, and nothing uses it" for t in named if t not in found}
        )

    def _without_questions(self, found: dict[TensorName, str]) -> dict[TensorName, str]:
        """Drops outputs that need what training needs, and something else beside.

        What is asked about a prediction, such as which of its elements to take, is no
        input of the model.
        """
        roles = self._predictions.roles
        optional = sum(
            1 << place
            for place, feed in enumerate(roles.feeds)
            if feed.kind == "default"
        )
        needed = {t: roles.dependence[t] & roles.inputs & ~optional for t in found}
        kept = {
            tensor: why
            for tensor, why in found.items()
            if not needed[tensor] & roles.in_losses
            or not needed[tensor] & ~roles.in_losses
        }
        return kept or found

    def _with_ends(self, heads: list[TensorName]) -> dict[TensorName, str]:
        """The predictions that the loss is made of, and what is computed from them."""
        found: dict[TensorName, str] = {}
        for head in heads:
            ends = self._ends.following(head)
            if not ends or self._is_natural(head, ends):
                found[head] = "the loss starts from it"
            found |= dict.fromkeys(ends, f"computed from {head}, and nothing uses it")
        return found

    def _evaluating(
        self, outputs: list[TensorName], heads: list[TensorName]
    ) -> list[TensorName]:
        """Outputs of a second copy of the network, without noise, for evaluation."""
        if not any(self._is_noisy(head) for head in heads):
            return []
        behind = [self._variables(head) for head in heads]
        return [
            tensor
            for tensor in outputs
            if not self._is_noisy(tensor)
            and set().union(*behind) <= self._variables(tensor)
        ]

    def _variables(self, tensor: TensorName) -> set[str]:
        """The variables that a tensor is computed with."""
        analysis = self._predictions.analysis
        return analysis.ancestors([tensor]) & analysis.trained

    def _is_noisy(self, tensor: TensorName) -> bool:
        """Whether noise or batch statistics are on the way to a tensor."""
        analysis = self._predictions.analysis
        names = analysis.ancestors([tensor])
        return any(is_training_op(analysis.graph.nodes[name]) for name in names)

    def _is_natural(self, head: TensorName, ends: list[TensorName]) -> bool:
        """Whether a user would ask for a tensor that others are computed from."""
        if naming.is_output(head.node) and not self._predictions.is_generic(head):
            return True
        later = self._predictions.analysis.reach([head.node]) - {head.node}
        if later & self._predictions.roles.weighted.keys():
            return False  # the graph goes on: a state, an encoding
        nodes = self._predictions.nodes
        copies = [t for t in ends if nodes[t.node].op == "Identity"]
        if any(nodes[t.node].inputs[:1] == [head] for t in copies):
            return False  # the user gave it a name by a copy
        scope = head.node.rpartition("/")[0]
        inside = [end for end in ends if end.node.rpartition("/")[0] == scope]
        return not (scope and inside)  # else it lies inside a layer

    def _unused(self) -> dict[TensorName, str]:
        """What nothing uses; only what has a name, if something has."""
        named = [t for t in self._ends.all if naming.is_output(t.node)]
        named = list(dict.fromkeys([*named, *self._ends.named]))
        ends = self._ends.without_by_products(self._ends.all)
        chosen = named or ends or self._ends.all
        found = dict.fromkeys(chosen, "nothing uses it")
        for tensor in chosen:
            if self._predictions.nodes[tensor.node].op in _CLASS_OPS:
                scores = self._predictions.before(tensor)[:1]
                found |= dict.fromkeys(scores, f"{tensor} is decided by it")
        return found
