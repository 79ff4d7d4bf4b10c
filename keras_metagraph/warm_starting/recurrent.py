"""Turns the variables of TensorFlow 1's recurrent cells into those of Keras's.

`LSTMCell`, `BasicLSTMCell` and `GRUCell` multiply input and state by one matrix, where
Keras keeps two, and have the gates in another order:

- LSTM: input, new input, forget, output in TensorFlow 1; input, forget, new input,
  output in Keras. TensorFlow 1 adds `forget_bias` (1 by default) in its graph, Keras
  has it in the bias.
- GRU: reset, update and, apart, candidate in TensorFlow 1; update, reset, candidate in
  Keras. TensorFlow 1 applies the reset gate before the matrix: `reset_after=False`.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.warm_starting.findings import Findings
from keras_metagraph.warm_starting.sources import Source
from keras_metagraph.warm_starting.targets import Target, Targets
from keras_metagraph.warm_starting.transfers import BY_SCOPE, Array, Transfer

# What releases called kernel and bias: from 1.2 on, 1.0 and 1.1, before.
_LSTM_NAMES = (
    ("kernel", "bias"),
    ("weights", "biases"),
    ("Linear/Matrix", "Linear/Bias"),
)
_GRU_NAMES = tuple(
    tuple(f"{gate}/{name}" for gate in gates for name in names)
    for gates, names in (
        (("gates", "candidate"), ("kernel", "bias")),
        (("gates", "candidate"), ("weights", "biases")),
        (("Gates", "Candidate"), ("Linear/Matrix", "Linear/Bias")),
    )
)
_DEFAULT_FORGET_BIAS = 1.0
# The way from an LSTM's matrix to the gates.
_TO_GATES = frozenset(
    {"Identity", "ReadVariableOp", "Enter", "MatMul", "BiasAdd", "Add", "AddV2"}
)
_ADDITIONS = frozenset({"Add", "AddV2"})
_FORGET_GATE = 2


def cell_of(layer: Any) -> Any:
    """The `LSTMCell` or `GRUCell` that a layer runs or is; None if it is another."""
    cell = getattr(layer, "cell", layer)
    known = (keras.layers.LSTMCell, keras.layers.GRUCell)
    return cell if isinstance(cell, known) else None


def is_cell(scope: str, layer: Any, source: Source) -> bool:
    """Whether a scope holds a cell of TensorFlow 1, and the layer is one of Keras.

    Args:
        scope: The scope: `"rnn/lstm_cell/"`.
        layer: The layer.
        source: Where the tensors are.

    Returns:
        Whether they are. A cell of Keras has a `recurrent_kernel` of its own.
    """
    cell = cell_of(layer)
    return cell is not None and bool(_tensors(scope, cell, source))


def is_foreign(target: Target, name: str, targets: Targets, source: Source) -> bool:
    """Whether a tensor is of a cell of TensorFlow 1, and its variable of one of Keras.

    Their biases have the same shape, so that a copy would go unnoticed.

    Args:
        target: The variable.
        name: The tensor.
        targets: The variables of the model.
        source: Where the tensors are.

    Returns:
        Whether they are.
    """
    cell = cell_of(targets.layer_of(target))
    scope = f"{name.rpartition('/')[0]}/"
    return cell is not None and bool(_tensors(scope, cell, source))


def transfer_cell(
    scope: str, layer: Any, source: Source, targets: Targets, findings: Findings
) -> Iterable[Transfer]:
    """Plans how a cell of Keras gets the values of one of TensorFlow 1.

    Args:
        scope: The scope of TensorFlow 1's cell: `"rnn/lstm_cell/"`.
        layer: `keras.layers.LSTM` or `GRU`, or a cell of these.
        source: Where the tensors are.
        targets: The variables of the model.
        findings: Gets what Keras's cell cannot have.

    Yields:
        One transfer for kernel, recurrent kernel and bias together.
    """
    cell = cell_of(layer)
    names = _tensors(scope, cell, source)
    if not cell.use_bias or getattr(cell, "reset_after", False):
        wanted = "use_bias=True" if not cell.use_bias else "reset_after=False"
        findings.conflict(f"{scope}: {layer.name!r} needs {wanted} to compute the same")
        return
    others = sorted(n for n in source.tensors if _is_more(n, scope, names))
    if others:
        findings.conflict(
            f"{scope}: {layer.name!r} has nothing like {', '.join(others)}"
        )
        return
    found = [targets.of(v) for v in (cell.kernel, cell.recurrent_kernel, cell.bias)]
    variables = tuple(target for target in found if target is not None)
    inputs = int(cell.kernel.shape[0])
    shapes = _shapes(source, names)
    is_lstm = isinstance(cell, keras.layers.LSTMCell)
    note = ""
    forget_bias = _DEFAULT_FORGET_BIAS
    if is_lstm:
        forget_bias, note = _forget_bias(names[0], source)
    yield Transfer(
        variables,
        names,
        f"{'LSTM' if is_lstm else 'GRU'} cell {scope!r} → {layer.name!r}",
        shapes,
        source.tensors[names[0]].dtype,
        (lambda arrays: _lstm(arrays, inputs, forget_bias))
        if is_lstm
        else (lambda arrays: _gru(arrays, inputs)),
        BY_SCOPE,
        note,
        (lambda arrays: _lstm(arrays, inputs, 0.0)) if is_lstm else None,
    )


def _tensors(scope: str, cell: Any, source: Source) -> tuple[str, ...]:
    """The tensors of a cell of TensorFlow 1 in a scope; none if there is no such."""
    scope = "" if scope == "/" else scope
    if source.find(f"{scope}recurrent_kernel") is not None:
        return ()
    lstm = isinstance(cell, keras.layers.LSTMCell)
    for names in _LSTM_NAMES if lstm else _GRU_NAMES:
        found = [source.find(scope + name) for name in names]
        tensors = tuple(name for name in found if name is not None)
        if len(tensors) == len(names) and _is_joint(source, tensors, cell):
            return tensors
    return ()


def _is_joint(source: Source, names: Sequence[str], cell: Any) -> bool:
    """Whether the kernel has the rows of the state below those of the input."""
    shape = source.tensors[names[0]].shape
    gates = 4 if isinstance(cell, keras.layers.LSTMCell) else 2
    return len(shape) == 2 and shape[1] % gates == 0 and shape[0] > shape[1] // gates


def _is_more(name: str, scope: str, names: Sequence[str]) -> bool:
    """Whether a tensor is a further variable of the cell: peepholes, projections."""
    if not name.startswith(scope) or name in names:
        return False
    slots = tuple(f"{other}/" for other in names)
    return not name.startswith(slots)


def _shapes(source: Source, names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The shapes of Keras's kernels and bias that the tensors give."""
    rows, columns = source.tensors[names[0]].shape
    gates = columns if len(names) == 2 else columns + source.tensors[names[2]].shape[1]
    own = columns // 4 if len(names) == 2 else columns // 2
    return (rows - own, gates), (own, gates), (gates,)


def _lstm(arrays: list[Array], inputs: int, forget_bias: float) -> list[Array]:
    kernel, bias = arrays
    order = [0, 2, 1, 3]  # input, new input, forget, output
    kernels = np.split(kernel, 4, axis=1)
    biases = np.split(bias, 4)
    biases[2] = biases[2] + np.asarray(forget_bias, bias.dtype)
    joint = np.concatenate([kernels[gate] for gate in order], axis=1)
    whole = np.concatenate([biases[gate] for gate in order])
    return [joint[:inputs], joint[inputs:], whole]


def _gru(arrays: list[Array], inputs: int) -> list[Array]:
    gates, gate_bias, candidate, candidate_bias = arrays
    reset, update = np.split(gates, 2, axis=1)
    reset_bias, update_bias = np.split(gate_bias, 2)
    joint = np.concatenate([update, reset, candidate], axis=1)
    bias = np.concatenate([update_bias, reset_bias, candidate_bias])
    return [joint[:inputs], joint[inputs:], bias]


def _forget_bias(kernel: str, source: Source) -> tuple[float, str]:
    """What the graph adds to the forget gate, and where that is known from."""
    found = _added(source.graph, kernel) if source.graph is not None else None
    if found is None:
        return (
            _DEFAULT_FORGET_BIAS,
            f"forget_bias {_DEFAULT_FORGET_BIAS}: TensorFlow's default; no graph says",
        )
    return found, f"forget_bias {found:g} as in the graph"


def _added(graph: Graph, kernel: str) -> float | None:
    """Follows the matrix of an LSTM to its forget gate, and what is added there."""
    users = graph.consumers()
    queue, seen = deque([kernel] if kernel in graph.nodes else []), {kernel}
    while queue:
        for user in users[queue.popleft()]:
            if user.name in seen:
                continue
            seen.add(user.name)
            if user.op == "Split":
                return _constant_beside(
                    graph, TensorName(user.name, _FORGET_GATE), users
                )
            if user.op == "LSTMBlockCell" or user.op.startswith("BlockLSTM"):
                return float(user.attrs["forget_bias"].f)
            if user.op in _TO_GATES:
                queue.append(user.name)
    return None


def _constant_beside(
    graph: Graph, gate: TensorName, users: dict[str, list[Node]]
) -> float | None:
    """The constant that is added to a tensor."""
    for user in users[gate.node]:
        if user.op not in _ADDITIONS or gate not in user.inputs:
            continue
        for tensor in user.inputs:
            node = graph.nodes.get(tensor.node)
            while node is not None and node.op in ("Identity", "Enter"):
                node = graph.nodes.get(node.inputs[0].node)
            if node is not None and node.op == "Const":
                return float(tf.make_ndarray(node.attrs["value"].tensor))
    return None
