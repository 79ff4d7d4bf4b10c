"""Finds the operations that train: who writes variables after the gradients."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Sequence

from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer.analysis import APPLY_PREFIXES, GraphAnalysis
from keras_metagraph.loading.infer.gradients import (
    backward_nodes,
    differentiated,
    gradient_scopes,
)

_ENDS = {"NoOp": 0, "AssignAdd": 1, "AssignAddVariableOp": 1}


@dataclasses.dataclass(frozen=True)
class TrainingStep:
    """One way of training that a graph has.

    Attributes:
        operations: The operations to run.
        variables: The trained variables that they write.
        losses: What they minimize, in the order of the file.
    """

    operations: tuple[str, ...]
    variables: frozenset[str]
    losses: tuple[TensorName, ...]


class Training:
    """The backward part of a graph, and the updates that follow it.

    Args:
        analysis: The graph.

    Attributes:
        backward: The nodes that compute gradients, each with its scope.
        losses: The differentiated tensors by scope.
        updates: The nodes that write variables by what gradients say.
        after: All nodes that take something from a gradient.
    """

    def __init__(self, analysis: GraphAnalysis) -> None:
        self.analysis = analysis
        graph = analysis.graph
        scopes = gradient_scopes(graph)
        self.backward = backward_nodes(graph, scopes)
        self.losses = {scope: differentiated(graph, scope) for scope in scopes}
        self.after = self._after(self.backward)
        self.updates = [
            name
            for name, variable in analysis.writes.items()
            if self._trains(name, variable)
        ]

    def _after(self, backward: Iterable[str]) -> frozenset[str]:
        """What gradients flow into: by data, and through slot variables.

        The sparse updates of a resource variable write the gradient into slots, and
        read these again for the variable itself.
        """
        analysis = self.analysis
        after = analysis.reach(backward)
        while True:
            slots = {
                name: analysis.writes[name]
                for name in after & analysis.writes.keys()
                if analysis.writes[name] not in analysis.trained
            }
            reads = {
                user.name
                for slot in slots.values()
                for user in analysis.tensor_users.get(TensorName(slot), [])
                if user.op == "ReadVariableOp" and user.name not in after
            }
            later = analysis.reach(slots, control=True) if reads else set()
            if not reads & later:
                return frozenset(after)
            after |= analysis.reach(reads & later)

    def _trains(self, name: str, variable: str) -> bool:
        if self.analysis.graph.nodes[name].op.startswith(APPLY_PREFIXES):
            return True
        return name in self.after and variable in self.analysis.trained

    def steps(self) -> list[TrainingStep]:
        """The training steps that the graph has, the one with most variables first.

        A step ends in an operation that waits for updates and that nothing waits for.
        Updates that nobody grouped belong to one step if they have a common loss.
        """
        coverage = self._coverage()
        ends = sorted(
            coverage,
            key=lambda name: (
                -coverage[name].bit_count(),
                _ENDS.get(self.analysis.graph.nodes[name].op, 2),
            ),
        )
        steps, covered = [], 0
        for name in ends:
            if coverage[name] & ~covered:
                covered |= coverage[name]
                steps.append(self.step([name]))
        return _joined(steps)

    def step(self, operations: Iterable[str]) -> TrainingStep:
        """Describes the training step that runs some operations."""
        operations = tuple(operations)
        names = self.analysis.ancestors(TensorName(name) for name in operations)
        variables = {self.analysis.writes[u] for u in self.updates if u in names}
        return TrainingStep(
            operations,
            frozenset(variables & self.analysis.trained),
            tuple(self._losses_behind(names)),
        )

    def runs(self, operations: Iterable[str]) -> list[TrainingStep]:
        """The runs of a session that some operations stand for, in their order.

        What trains by another loss than the operation before it has a run of its own:
        the two sides of a GAN follow each other. The rest goes along.
        """
        runs: list[TrainingStep] = []
        for name in operations:
            step = self.step([name])
            last = runs[-1] if runs else None
            alone = last is not None and step.variables and last.variables
            if last is None or (alone and step.losses != last.losses):
                runs.append(step)
            else:
                runs[-1] = self.step([*last.operations, name])
        return runs

    def parts(self, step: TrainingStep) -> list[TrainingStep]:
        """The losses of a step, each with the variables that it trains.

        One run may train several networks, each by its own loss (`tf.group`, or train
        ops that wait for each other). Losses of one `tf.gradients` add up, so each of
        them trains the same variables.

        Args:
            step: A step of the graph.

        Returns:
            A step for each loss; the one given if it has one loss, or if gradients of
            several come together in a variable, as those of replicas do.
        """
        if len(step.losses) < 2:
            return [step]
        names = self.analysis.ancestors(TensorName(n) for n in step.operations)
        found: dict[TensorName, frozenset[str]] = {}
        owners: dict[str, set[TensorName]] = {}
        for scope, tensors in self.losses.items():
            losses = {loss for loss in tensors if loss in step.losses}
            if not losses:
                continue
            backward = [n for n, s in self.backward.items() if s == scope]
            after = self._after(name for name in backward if name in names)
            updates = [u for u in self.updates if u in names and u in after]
            variables = frozenset(self.analysis.writes[u] for u in updates)
            variables &= step.variables
            if any(owners.setdefault(name, losses) != losses for name in variables):
                return [step]
            for loss in losses:
                found[loss] = found.get(loss, frozenset()) | variables
        if owners.keys() != step.variables:
            return [step]
        return [
            TrainingStep(step.operations, found[loss], (loss,))
            for loss in step.losses
            if found.get(loss)
        ]

    def outermost(self, operations: list[str]) -> list[str]:
        """Drops operations that another one of them runs anyway."""
        kept = []
        for name in operations:
            others = [other for other in operations if other != name]
            users = self.analysis.reach([name], control=True)
            if not any(other in users for other in others):
                kept.append(name)
        return kept

    def wrapped(self, operations: Sequence[str]) -> tuple[str, ...]:
        """The operation that runs train ops and what else belongs to their step.

        `tf.group(train_op, averages)` is what the user ran; the collection has the
        inner one. Of several it is what waits for all of them, and of one inside a
        condition, which cannot be run from outside, what comes after the condition.

        Args:
            operations: Train ops of one loss.

        Returns:
            The one operation; the given ones where there is none.
        """
        analysis = self.analysis
        hidden = analysis.in_branches | analysis.in_frames
        around_all = len(operations) > 1 or not hidden.isdisjoint(operations)
        inner = self._writes_of(operations)
        after = [analysis.reach([name], control=True) for name in operations]
        common = set.intersection(*after) - hidden
        for name, node in analysis.graph.nodes.items():
            if name not in common or analysis.users[name]:
                continue
            if node.op != "NoOp" and not around_all:
                continue
            written = self._writes_of([name])
            more = written - inner
            if (more or around_all) and not more & set(self.updates):
                return (name,)
        return tuple(operations)

    def joined(self, steps: Sequence[TrainingStep]) -> list[TrainingStep]:
        """Joins steps of one and the same loss whose updates have nothing in common.

        Args:
            steps: Steps, as collections name them.

        Returns:
            Fewer steps, if there are such; wide and deep models train so.
        """
        found = _joined(list(steps))
        return [
            self.step(self.wrapped(step.operations))
            if len(step.operations) > 1
            else step
            for step in found
        ]

    def _writes_of(self, operations: Iterable[str]) -> set[str]:
        """The nodes that write variables when some operations run."""
        before = self.analysis.ancestors(TensorName(name) for name in operations)
        return {name for name in before if name in self.analysis.writes}

    def _losses_behind(self, names: set[str]) -> list[TensorName]:
        used = {scope for node, scope in self.backward.items() if node in names}
        found: dict[TensorName, None] = {}
        for scope, losses in self.losses.items():
            if scope in used:
                found.update(dict.fromkeys(losses))
        # The inner gradient of a gradient penalty is part of the outer loss.
        inner: set[TensorName] = set()
        for loss in found:
            before = self.analysis.ancestors([loss])
            scopes = {self.backward[name] for name in before & self.backward.keys()}
            parts = {other for other in found if other.node in before}
            inner |= parts.union(*(self.losses[scope] for scope in scopes)) - {loss}
        return [loss for loss in found if loss not in inner] or list(found)

    def _coverage(self) -> dict[str, int]:
        """For each end, the updates that it waits for, as a bit mask."""
        analysis = self.analysis
        masks = {name: 1 << place for place, name in enumerate(self.updates)}
        queue = deque(masks)
        waiting = set(queue)
        while queue:
            name = queue.popleft()
            waiting.discard(name)
            for user in analysis.users[name]:
                mask = masks.get(user.name, 0) | masks[name]
                if mask != masks.get(user.name):
                    masks[user.name] = mask
                    if user.name not in waiting:
                        waiting.add(user.name)
                        queue.append(user.name)
        return {
            name: mask
            for name, mask in masks.items()
            if not analysis.users[name] and name not in self.backward
        }


def _joined(steps: list[TrainingStep]) -> list[TrainingStep]:
    """Joins steps of one and the same loss whose updates have nothing in common."""
    joined: list[TrainingStep] = []
    for step in steps:
        for place, other in enumerate(joined):
            apart = not step.variables & other.variables
            if apart and step.losses and step.losses == other.losses:
                joined[place] = TrainingStep(
                    other.operations + step.operations,
                    other.variables | step.variables,
                    other.losses,
                )
                break
        else:
            joined.append(step)
    return joined
