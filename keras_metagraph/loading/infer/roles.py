"""Tells inputs from labels: which feeds the weights are applied to."""

import functools
import re
from collections.abc import Collection, Sequence

from keras_metagraph.graph.ir import Node, TensorName
from keras_metagraph.loading.infer import naming
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.dependence import Dependence
from keras_metagraph.loading.infer.feeds import Feed

# Ops that bring values together without computing with them.
_NEUTRAL = frozenset(
    {"Merge", "Switch", "RefSwitch", "Enter", "RefEnter", "NextIteration", "Assert"}
)
# Losses of tf.nn that have weights of their own.
_WEIGHTED_LOSS = re.compile(r"(^|/)(nce_loss|sampled_softmax_loss)(_\d+)?/")


class Roles:
    """Which part each feed plays in a graph.

    Args:
        analysis: The graph.
        feeds: Its feeds.
        aside: Feeds that are no data: training flags, dropout rates, constants.
        losses: What the graph minimizes.
        skipped: Nodes that do not count: the backward part, and what follows it.
        trained: The variables that training changes.
        labels: The labels, where the caller named them.
        inputs: The inputs, where the caller named them.

    Attributes:
        feeds: The feeds.
        dependence: On which feeds, as bits in their order, each tensor depends; the bit
            after them stands for trainable variables.
        trained: That bit.
        inputs: Mask of the feeds that are inputs.
        labels: Mask of the feeds that are labels.
    """

    def __init__(
        self,
        analysis: GraphAnalysis,
        feeds: Sequence[Feed],
        aside: Collection[TensorName],
        losses: Sequence[TensorName],
        skipped: Collection[str],
        trained: Collection[str],
        labels: Collection[TensorName] | None = None,
        inputs: Collection[TensorName] | None = None,
    ) -> None:
        self.feeds = list(feeds)
        self._analysis = analysis
        self._losses = list(losses)
        self._skipped = skipped
        bits = {feed.tensor: 1 << place for place, feed in enumerate(self.feeds)}
        self.trained = 1 << len(self.feeds)
        self._aside = self._mask(bits, aside)
        sources = bits | {TensorName(name): self.trained for name in trained}
        cut = {feed.tensor.node for feed in self.feeds if feed.kind == "pipeline"}
        self.dependence = Dependence(analysis, sources, cut)
        data = (self.trained - 1) & ~self._aside
        if labels is not None:
            self.labels = self._mask(bits, labels)
        elif inputs is not None:
            self.labels = data & ~self._mask(bits, inputs) & self.in_losses
        else:
            self.labels = self._guess_labels(data)
        self.inputs = data & ~self.labels
        if inputs is not None:
            self.inputs = self._mask(bits, inputs)

    @functools.cached_property
    def weighted(self) -> dict[str, int]:
        """Nodes that apply trained variables to data, with the data's mask."""
        return self._weighted(scalars=False) or self._weighted(scalars=True)

    @functools.cached_property
    def forward(self) -> set[str]:
        """Nodes that the losses need; all that count where there is no loss."""
        if not self._losses:
            return set(self._analysis.graph.nodes.keys() - self._skipped)
        return self._analysis.ancestors(self._losses) - set(self._skipped)

    def tensors(self, mask: int) -> list[TensorName]:
        """The feeds in a mask."""
        return [
            feed.tensor for place, feed in enumerate(self.feeds) if mask >> place & 1
        ]

    @functools.cached_property
    def in_losses(self) -> int:
        """Mask of the feeds that the losses need."""
        mask = 0
        for loss in self._losses:
            mask |= self.dependence[loss]
        return mask & ~self.trained

    def _mask(
        self, bits: dict[TensorName, int], tensors: Collection[TensorName]
    ) -> int:
        mask = 0
        for tensor in tensors:
            mask |= bits.get(tensor, 0)
        return mask

    def _weighted(self, *, scalars: bool) -> dict[str, int]:
        found = {}
        for name in self.forward:
            mask = self._applied(self._analysis.graph.nodes[name])
            if mask and (scalars or self._analysis.rank(TensorName(name)) != 0):
                found[name] = mask
        return found

    def _applied(self, node: Node) -> int:
        """The data that a node combines with a variable, if it does."""
        if node.op in _NEUTRAL or len(node.inputs) < 2 or self._analysis.is_write(node):
            return 0
        if _WEIGHTED_LOSS.search(node.name):
            return 0
        masks = [self.dependence[tensor] & ~self._aside for tensor in node.inputs]
        if self.trained not in masks:
            return 0
        mask = 0
        for value in masks:
            mask |= value
        return mask & ~self.trained

    def _guess_labels(self, data: int) -> int:
        """Feeds of the loss that no weight is applied to, or that are called labels.

        A label meets the prediction after the last weight; an input meets weights on
        its way. Some losses do apply weights to labels (a CRF's transitions, NCE), so
        names count too, as long as a prediction without them is left.
        """
        reached = self.in_losses & data
        applied = 0
        for mask in self.weighted.values():
            applied |= mask
        unused = reached & ~applied
        named = sum(
            1 << place
            for place, feed in enumerate(self.feeds)
            if naming.is_label(feed.tensor.node)
        )
        unused &= ~self._added(unused & ~named, unused)
        for labels in (unused | (reached & named), unused):
            if labels and self._predicts_without(labels, reached & ~labels):
                return labels
        return 0

    def _added(self, unnamed: int, candidates: int) -> int:
        """Feeds that are added to a prediction before labels meet it.

        They are skip connections and masks of logits, so inputs.
        """
        added, otherwise = 0, 0
        for name in self.forward:
            node = self._analysis.graph.nodes[name]
            masks = [self.dependence[tensor] & ~self._aside for tensor in node.inputs]
            if not any(mask & self.trained for mask in masks):
                continue
            for mask in masks:
                if mask & unnamed and not mask & self.trained:
                    if node.op in ("Add", "AddV2"):
                        added |= mask & unnamed
                    else:
                        otherwise |= mask & unnamed
        added &= ~otherwise
        return added if candidates & ~added else 0

    def _predicts_without(self, labels: int, inputs: int) -> bool:
        """Whether the graph computes something with weights before labels come in."""
        if not inputs:
            return False
        for name in self.forward:
            mask = self.dependence.node(name)
            if mask & self.trained and mask & inputs and not mask & labels:
                return True
        return False
