"""The state of one inference, which its steps fill one after the other."""

from collections.abc import Iterable, Sequence
from typing import Any

from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer.analysis import GraphAnalysis
from keras_metagraph.loading.infer.arguments import Given
from keras_metagraph.loading.infer.collections import read_collections
from keras_metagraph.loading.infer.feeds import Feed, find_feeds
from keras_metagraph.loading.infer.interface import Interface
from keras_metagraph.loading.infer.roles import Roles
from keras_metagraph.loading.infer.signatures import Signature
from keras_metagraph.loading.infer.updates import Training, TrainingStep


class State:
    """What an inference knows of a graph, and what it has found so far.

    Args:
        meta_graph_def: The MetaGraph.
        analysis: Its graph.
        given: What the caller named.
        signature: The signature to follow, if there is one.

    Attributes:
        analysis: The graph.
        collections: The collections that name nodes.
        training: The backward part of the graph.
        given: What the caller named.
        signature: The signature to follow, if there is one.
        result: What was found.
        feeds: What can be fed.
        steps: The training steps that the graph may have.
        losses: What is minimized, also where no single loss was chosen.
        roles: Which feeds are inputs and labels; set when it is known what is neither.
    """

    roles: Roles

    def __init__(
        self,
        meta_graph_def: Any,
        analysis: GraphAnalysis,
        given: Given,
        signature: Signature | None,
    ) -> None:
        self.analysis = analysis
        self.given = given
        self.signature = signature
        self.collections = read_collections(meta_graph_def, analysis.graph)
        self.training = Training(analysis)
        self.result = Interface(signature=None if signature is None else signature.name)
        self.result.dropped.extend(self.collections.dangling)
        saver = meta_graph_def.saver_def.filename_tensor_name
        self.feeds = self._with_named(find_feeds(analysis, saver))
        self.steps: list[TrainingStep] = []
        self.losses: list[TensorName] = []

    def because(self, name: TensorName | str, reason: str) -> None:
        """Notes why something was chosen; the first reason stands."""
        self.result.reasons.setdefault(str(name), reason)

    def parsed(self, names: Iterable[str]) -> list[TensorName]:
        """Tensors by their names."""
        return [TensorName.parse(name) for name in names]

    @property
    def aside(self) -> set[TensorName]:
        """Feeds that are no data: flags, dropout rates, constants."""
        return set(self.parsed(self.result.training_values))

    def needed(
        self, roots: Sequence[TensorName], fed: Iterable[TensorName]
    ) -> list[Feed]:
        """The feeds that must have values for `roots`.

        Args:
            roots: What is to be computed.
            fed: Tensors that have values already.

        Returns:
            The other feeds on the way, those with defaults too.
        """
        fed = set(fed)
        stops = {feed.tensor for feed in self.feeds if feed.kind != "default"} | fed
        stops |= self.replacing
        names = self.analysis.ancestors(roots, stops)
        users = self.analysis.tensor_users
        return [
            feed
            for feed in self.feeds
            if feed.tensor not in fed
            and (
                feed.tensor in roots
                or feed.tensor.node in names
                or any(user.name in names for user in users.get(feed.tensor, []))
            )
        ]

    @property
    def replacing(self) -> set[TensorName]:
        """Placeholders whose default is what a pipeline gives: they are the inputs."""
        pipelines = sum(
            1 << place
            for place, feed in enumerate(self.feeds)
            if feed.kind == "pipeline"
        )
        return {
            feed.tensor
            for feed in self.feeds
            if feed.kind == "default"
            and self.roles.dependence.node(feed.tensor.node) & pipelines
        }

    def _with_named(self, feeds: list[Feed]) -> list[Feed]:
        """The feeds, and the tensors that the caller or the signature wants to feed."""
        known = {feed.tensor for feed in feeds}
        named = [*self.given.fed]
        if self.signature is not None:
            named += self.signature.inputs.values()
        extra = [
            Feed(t, "pipeline", self.analysis.rank(t), self.analysis.dtype(t))
            for t in dict.fromkeys(named)
            if t not in known
        ]
        return [*feeds, *extra]
