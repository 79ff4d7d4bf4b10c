"""What a graph does to gradients before its optimizer gets them.

Clipping has been written in many ways since 2015. So the part of the graph between
`tf.gradients` and the updates is run on made-up gradients, and what it does to them
tells what it is: candidates that do not agree everywhere are not taken.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_metagraph.errors import MetaGraphError
from keras_metagraph.graph.ir import TensorName
from keras_metagraph.loading.infer.analysis import SHAPE_OPS, GraphAnalysis
from keras_metagraph.loading.infer.assigned import rows_of
from keras_metagraph.loading.infer.feeds import PLACEHOLDERS
from keras_metagraph.loading.infer.optimizers import Gradient
from keras_metagraph.loading.infer.schedule_fit import shortest
from keras_metagraph.loading.infer.scratch import Scratch, corner, loose_part
from keras_metagraph.loading.infer.updates import Training

Array = Any
_RANDOM = ("Random", "TruncatedNormal", "StatelessRandom", "StatefulUniform")
_REDUCTIONS = frozenset(
    {"All", "Any", "L2Loss", "Max", "Mean", "Min", "Prod", "Sum", "EuclideanNorm"}
)
_PLAIN = frozenset({"Const", "Identity"})
_ROWS = 3
_TINY, _HUGE = 1e-7, 1e6
_EQUAL = 2e-5


@dataclasses.dataclass(frozen=True)
class GradientChain:
    """What becomes of gradients, in the arguments of a Keras optimizer.

    Attributes:
        clipnorm: The norm that each gradient has at most.
        global_clipnorm: The norm that all of them together have at most.
        clipvalue: The value that elements have at most.
        scale: What gradients are multiplied by before they are clipped.
        decay: The part of each weight that is added to its gradient afterwards.
        decayed: Names of the variables whose gradients get it.
        loss_scale: What the loss was multiplied by, where `scale` undoes it.
        together: Names of the variables whose gradients share the global norm.
        sparse: Those that get sparse gradients.
        densified: Those whose sparse gradient is made dense on the way.
        findings: What no argument says.
    """

    clipnorm: float | None = None
    global_clipnorm: float | None = None
    clipvalue: float | None = None
    scale: float = 1.0
    decay: float = 0.0
    decayed: frozenset[str] = frozenset()
    loss_scale: float | None = None
    together: frozenset[str] = frozenset()
    sparse: frozenset[str] = frozenset()
    densified: frozenset[str] = frozenset()
    findings: tuple[str, ...] = ()

    @property
    def threshold(self) -> float:
        """The value or norm at which clipping begins; 1 where nothing is clipped."""
        return self.clipvalue or self.clipnorm or self.global_clipnorm or 1.0

    @property
    def arguments(self) -> dict[str, float]:
        """The arguments of a Keras optimizer that clip as the graph does."""
        names = ("clipnorm", "global_clipnorm", "clipvalue")
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}


_WITH_SUMS = GradientChain(
    findings=(
        "not carried: sparse gradients are clipped once rows with the same index are "
        "added, not as they come",
    )
)


class UnknownGradientError(Exception):
    """The gradient of a variable does not come from a loss of the graph."""


def describe_chain(
    training: Training,
    gradients: Mapping[str, Gradient],
    values: Mapping[str, Any],
    feeds: Mapping[str, Any],
    everything: Mapping[str, Gradient] | None = None,
) -> GradientChain:
    """Finds what is done to gradients between the loss and the optimizer.

    Args:
        training: The backward part of the graph.
        gradients: What the updates of an optimizer take, by trained variable.
        values: Arrays by variable name.
        feeds: Values of placeholders in training, by tensor name.
        everything: The same of all optimizers of the step, if there are several.

    Returns:
        The chain.

    Raises:
        UnknownGradientError: If what updates take does not come from a loss; has the
            names of the variables.

    Example:
        ```python
        (optimizer,) = describe_optimizer(graph, variables, ["train_op"])
        chain = describe_chain(training, optimizer.gradients, values, {})
        chain.arguments  # {"global_clipnorm": 5.0}
        ```
    """
    paths = {
        name: _Path(training, name, gradient)
        for name, gradient in {**(everything or {}), **gradients}.items()
    }
    own = {name: paths[name] for name in gradients}
    analysis = training.analysis
    unknown = [n for n, p in own.items() if not p.raw and not _held(analysis, p)]
    if unknown:
        raise UnknownGradientError(*unknown)
    chain = GradientChain(
        sparse=frozenset(n for n, path in own.items() if path.sparse),
        densified=frozenset(n for n, path in own.items() if path.densified),
    )
    if not any(path.nodes for path in own.values()):
        return chain
    findings = list(_findings(analysis, own))
    if findings:
        return dataclasses.replace(chain, findings=tuple(findings))
    try:
        found = _Probe(analysis, paths, own, values, feeds).describe()
    except (MetaGraphError, tf.errors.OpError, ValueError) as error:
        reason = str(getattr(error, "problem", error)).partition("\n")[0]
        text = f"not carried: what is done to gradients cannot be told apart: {reason}"
        found = GradientChain(findings=(text,))
    return dataclasses.replace(found, sparse=chain.sparse, densified=chain.densified)


class _Path:
    """The nodes between the backward part of a graph and the gradient of a variable.

    Attributes:
        gradient: The gradient.
        nodes: Their names; none for a gradient that is taken as it comes.
        raw: The tensors that come out of the backward part, but for indices.
        own: Those of `raw` that are the variable's own gradient, and not only a part
            of a norm.
        rows: What else of sparse gradients is used.
    """

    def __init__(self, training: Training, name: str, gradient: Gradient) -> None:
        self.gradient = gradient
        analysis = training.analysis
        self.nodes: set[str] = set()
        self.raw: dict[TensorName, None] = {}
        self.own: dict[TensorName, None] = {}
        direct: set[str] = set()
        # The first pass does not enter norms, so what it finds is the variable's own.
        for through, found in ((False, self.own), (True, self.raw)):
            stack = [gradient.values]
            seen: set[TensorName] = set()
            while stack:
                tensor = stack.pop()
                if tensor in seen:
                    continue
                seen.add(tensor)
                if tensor.node in training.backward:
                    dtype = analysis.dtype(tensor)
                    if dtype is None or dtype.is_floating:
                        found.setdefault(tensor)
                    continue
                node = analysis.graph.nodes[tensor.node]
                (self.nodes if through else direct).add(node.name)
                if node.op in SHAPE_OPS or node.name in analysis.variables:
                    continue
                if node.op == "IdentityN":
                    stack.append(node.inputs[tensor.index])
                elif through or node.op not in _REDUCTIONS:
                    stack.extend(node.inputs)
        self.rows = rows_of(training, direct)
        # A mean of several gradients is a reduction too.
        self.own = self.own or dict(self.raw)
        self.variables = self.nodes & analysis.variables.keys() - {name}

    @property
    def sparse(self) -> bool:
        """Whether what comes out of the backward part are rows."""
        return bool(self.rows.indices) or self.gradient.indices is not None

    @property
    def densified(self) -> bool:
        """Whether the rows become a dense gradient."""
        return bool(self.rows.indices) and self.gradient.indices is None


def _findings(analysis: GraphAnalysis, paths: Mapping[str, _Path]) -> Iterator[str]:
    """What is known to have no argument in Keras."""
    nodes = analysis.graph.nodes
    inside = {name for path in paths.values() for name in path.nodes}
    random = sorted(n for n in inside if nodes[n].op.startswith(_RANDOM))
    if random:
        yield f"not carried: noise is added to the gradients ({_list(random)})"
    held = {name for path in paths.values() for name in _held(analysis, path)}
    if held:
        yield (
            "not carried: gradients are gathered over several steps, in variables "
            f"({_list(sorted(held))})"
        )
    fed = [n for n in inside if nodes[n].op in PLACEHOLDERS and not nodes[n].inputs]
    if fed:
        yield f"not carried: gradients depend on what is fed ({_list(sorted(fed))})"
    if inside & analysis.in_branches:
        yield "not carried: gradients pass through a condition"
    several = [name for name, path in paths.items() if len(path.own) > 1]
    if several:
        towers = max(len(path.own) for path in paths.values())
        yield (
            f"not carried: gradients are put together from up to {towers} losses or "
            f"replicas ({_list(several)})"
        )


def _held(analysis: GraphAnalysis, path: _Path) -> set[str]:
    """The variables that hold what a gradient is made of, from earlier steps."""
    written = set(analysis.writes.values()) - analysis.trained
    return {n for n in path.variables & written if analysis.variables[n].shape != ()}


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


class _Probe:
    """Runs the chain on made-up gradients.

    Args:
        analysis: The graph.
        paths: The paths of all gradients of the training step.
        own: The paths of the optimizer's gradients.
        values: Arrays by variable name.
        feeds: Values of placeholders, by tensor name.
    """

    def __init__(
        self,
        analysis: GraphAnalysis,
        paths: Mapping[str, _Path],
        own: Mapping[str, _Path],
        values: Mapping[str, Any],
        feeds: Mapping[str, Any],
    ) -> None:
        self._analysis = analysis
        self._paths = paths
        self._own = own
        self._values = {**values, **{n: corner(values[n]) for n in paths}}
        self._feeds = feeds
        nodes = {name for path in own.values() for name in path.nodes}
        self._scratch = Scratch(
            loose_part(analysis.graph, nodes), list(analysis.variables), self._values
        )
        self._random = np.random.default_rng(0)
        self._state: dict[str, Array] = {}
        # Which variables have a part in each other's gradients, by a norm of them all.
        needed = {tensor for path in own.values() for tensor in path.raw}
        self._sources = {
            name: next(iter(path.own))
            for name, path in paths.items()
            if needed & path.own.keys()
        }
        self._rows: dict[str, Array] = {}
        self._shapes: set[str] = set()
        for name, path in paths.items():
            shape = np.shape(self._values[name])
            for tensor in (*path.rows.indices, path.gradient.indices):
                if tensor is not None:
                    self._rows[str(tensor)] = np.arange(min(_ROWS, *shape[:1]))
            for tensor in path.rows.shapes:
                self._rows[str(tensor)] = np.array(shape)
                self._shapes.add(str(tensor))

    def describe(self) -> GradientChain:
        """The chain, or what is in it that Keras has no argument for."""
        zero = self._run(self._made(0.0))
        shifted = {n: g for n, g in zero.items() if np.any(g != 0)}
        decays = self._decays(shifted)
        if isinstance(decays, str):
            return GradientChain(findings=(decays,))
        # Weights of zero have no decay.
        self._state = {name: np.zeros_like(self._values[name]) for name in decays}
        chain = self._without_decay()
        rate = next(iter(decays.values()), 0.0)
        return dataclasses.replace(chain, decay=rate, decayed=frozenset(decays))

    def _without_decay(self) -> GradientChain:
        """The chain, but for what is added to the gradients."""
        tiny = self._made(_TINY)
        factors = self._factors(tiny, self._run(tiny))
        if isinstance(factors, str):
            return GradientChain(findings=(factors,))
        scale = shortest(np.mean(list(factors.values())))
        if not np.allclose(list(factors.values()), scale, rtol=_EQUAL):
            shown = {n: shortest(f) for n, f in factors.items() if abs(f - 1) > _EQUAL}
            return GradientChain(
                findings=(f"not carried: gradients are multiplied by {shown}",)
            )
        for chain in self._clippings(scale):
            if self._holds(chain):
                return chain if self._takes_rows(chain) else _WITH_SUMS
        ops = {
            self._analysis.graph.nodes[n].op
            for p in self._own.values()
            for n in p.nodes
        }
        return GradientChain(
            findings=(
                "not carried: gradients are changed by operations that are none of "
                f"tf.clip_by_*: {_list(sorted(ops - _PLAIN))}",
            )
        )

    def _made(self, size: float, unlike: bool = False) -> dict[str, Array]:
        """Gradients of all variables, their elements about `size`."""
        made = {}
        for place, name in enumerate(self._sources):
            shape = np.shape(self._values[name])
            if self._paths[name].sparse:
                shape = (min(_ROWS, shape[0]), *shape[1:])
            factor = size * (1 + place % 3) if unlike else size
            numbers = self._random.standard_normal(shape).astype(np.float32)
            made[name] = np.asarray(numbers * np.float32(factor), np.float32)
        return made

    def _run(
        self, made: Mapping[str, Array], rows: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """What the updates take when the backward part gives `made`."""
        fetched = [n for n, path in self._own.items() if path.nodes]
        feeds = {str(t): made[name] for name, t in self._sources.items()}
        feeds |= {**self._rows, **(rows or {})}
        for tensor, value in self._feeds.items():
            feeds.setdefault(tensor, value)
        tensors = [str(self._own[name].gradient.values) for name in fetched]
        run = self._scratch.run(tensors, feeds, self._state)
        arrays = dict(zip(fetched, run, strict=True))
        found = {}
        for name, path in self._own.items():
            array = np.asarray(arrays.get(name, made[name]))
            found[name] = array[: len(made[name])] if path.densified else array
        return found

    def _decays(self, found: Mapping[str, Array]) -> dict[str, float] | str:
        """The weight decay that updates take where all gradients are zero."""
        rates: dict[str, float] = {}
        for name, array in found.items():
            weight = np.asarray(self._values[name])
            if self._own[name].sparse:
                weight = weight[: len(array)]
            norm = float(np.sum(weight * weight)) if weight.shape == array.shape else 0
            rate = float(np.sum(weight * array)) / norm if norm else 0.0
            if not norm or not np.allclose(array, rate * weight, rtol=1e-4, atol=1e-8):
                return f"not carried: something is added to the gradient of {name}"
            rates[name] = self._constant(rate)
        if len(set(rates.values())) > 1:
            return f"not carried: different weight decay of gradients, {rates}"
        return rates

    def _factors(
        self, made: Mapping[str, Array], found: Mapping[str, Array]
    ) -> dict[str, float] | str:
        """What each gradient is multiplied by where it is too small to be clipped."""
        factors = {}
        for name, array in found.items():
            raw = made[name]
            if array.shape != raw.shape:
                return f"not carried: the gradient of {name} changes its shape"
            norm = float(np.sum(raw.astype(np.float64) ** 2))
            factor = float(np.sum(raw.astype(np.float64) * array)) / norm
            if not np.allclose(array, factor * raw, rtol=1e-4, atol=1e-3 * _TINY):
                return (
                    f"not carried: the gradient of {name} is changed also where it is "
                    "small"
                )
            factors[name] = factor
        return factors

    def _clippings(self, scale: float) -> Iterator[GradientChain]:
        """What may have happened to gradients that became smaller."""
        made = self._made(_HUGE)
        found = self._run(made)
        raw = {name: scale * made[name].astype(np.float64) for name in made}
        yield GradientChain(scale=scale)
        largest = max(float(np.max(np.abs(g), initial=0)) for g in found.values())
        yield GradientChain(clipvalue=self._constant(largest), scale=scale)
        norms = [
            float(np.sqrt(np.sum(np.square(g, dtype=np.float64))))
            for g in found.values()
        ]
        yield GradientChain(clipnorm=self._constant(max(norms)), scale=scale)
        name = max(found, key=lambda n: float(np.sum(np.abs(found[n]))))
        shrunk = np.linalg.norm(found[name]) / np.linalg.norm(raw[name])
        yield GradientChain(
            global_clipnorm=self._constant(float(shrunk) * _global_norm(raw)),
            scale=scale,
            together=frozenset(raw),
        )

    def _constant(self, value: float) -> float:
        """The number of the graph that a measured one is."""
        nodes = {name for path in self._own.values() for name in path.nodes}
        for name in sorted(nodes):
            number = self._analysis.constant(TensorName(name))
            if isinstance(number, int | float) and abs(number - value) <= 1e-4 * value:
                return float(number)
        return shortest(value)

    def _holds(self, chain: GradientChain) -> bool:
        """Whether Keras would do the same, for gradients around the threshold."""
        threshold = chain.threshold
        if not np.isfinite(threshold) or threshold <= 0:
            return False
        for size in (1e-3, 0.1, 0.5, 1.0, 2.0, 1e3, 1e6):
            made = self._made(size * threshold / chain.scale, unlike=True)
            found, expected = self._run(made), _clipped(chain, made)
            for name, array in found.items():
                bound = 1e-6 * float(np.max(np.abs(expected[name]), initial=0))
                if not np.allclose(array, expected[name], rtol=_EQUAL, atol=bound):
                    return False
        return True

    def _takes_rows(self, chain: GradientChain) -> bool:
        """Whether rows that have the same index are clipped as they come."""
        made = self._made(10 * chain.threshold / chain.scale)
        rows = {
            tensor: np.zeros_like(indices) if indices.ndim else indices
            for tensor, indices in self._rows.items()
            if tensor not in self._shapes
        }
        found = self._run(made, rows)
        expected = _clipped(chain, made)
        # What is added later has the same sum.
        return all(
            np.isclose(np.sum(found[name]), np.sum(expected[name]), rtol=1e-3)
            for name in found
        )


def _global_norm(gradients: Mapping[str, Array]) -> float:
    squares = [np.sum(np.square(g, dtype=np.float64)) for g in gradients.values()]
    return float(np.sqrt(sum(squares)))


def _clipped(chain: GradientChain, made: Mapping[str, Array]) -> dict[str, Array]:
    """What Keras makes of gradients."""
    scaled = {name: chain.scale * g.astype(np.float64) for name, g in made.items()}
    if chain.clipvalue is not None:
        bound = chain.clipvalue
        return {name: np.clip(g, -bound, bound) for name, g in scaled.items()}
    if chain.clipnorm is not None:
        return {
            name: g * min(1.0, chain.clipnorm / (np.linalg.norm(g) or 1.0))
            for name, g in scaled.items()
        }
    if chain.global_clipnorm is not None:
        factor = min(1.0, chain.global_clipnorm / (_global_norm(scaled) or 1.0))
        return {name: g * factor for name, g in scaled.items()}
    return scaled
