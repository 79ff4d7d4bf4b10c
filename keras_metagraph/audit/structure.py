"""Checks that a MetaGraph holds together, whatever its ops do.

Sizes, names, references and cycles; all in one pass over the file, and nothing here
follows a graph by recursion.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keras_metagraph.audit.limits import DEFAULT_LIMITS, Limits
from keras_metagraph.audit.policy import known_ops
from keras_metagraph.audit.tensors import tensor_problem
from keras_metagraph.errors import FormatError, UntrustedContentError

MetaGraphDef = Any
NodeDef = Any
FunctionDef = Any

_MAX_FINDINGS = 1000
_INDEX_DIGITS = 9
_BACK_EDGES = frozenset({"NextIteration", "RefNextIteration"})


def check_structure(
    meta_graph_def: MetaGraphDef, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Refuses a MetaGraph that is damaged, or made to exhaust whoever reads it.

    Args:
        meta_graph_def: The MetaGraph, as parsed.
        limits: How large its parts may be.

    Raises:
        UntrustedContentError: If parts are larger than `limits` says, functions call
            one another in a circle, or a function takes the name of an op.
        FormatError: If names repeat, inputs lead nowhere or in a circle, or constants
            do not fit their shapes.
    """
    check = _Check(limits)
    graph_def = meta_graph_def.graph_def
    check.counts(meta_graph_def)
    if not check.hostile:  # what follows takes time that grows with the counts
        functions = {f.signature.name: f for f in graph_def.library.function}
        check.library(graph_def.library, functions)
        check.nodes(graph_def.node, "", ())
        for name, function in functions.items():
            arguments = [arg.name for arg in function.signature.input_arg]
            check.nodes(function.node_def, f"{name}: ", arguments)
            check.results(function, arguments)
    check.report()


class _Check:
    """Collects what is wrong with one MetaGraph."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.damaged: list[str] = []
        self.hostile: list[str] = []

    def report(self) -> None:
        """Raises one error for everything that was found."""
        if self.hostile:
            raise UntrustedContentError(
                "The graph is not read: parts of it are larger than any model "
                "needs, or are built to mislead.",
                findings=[*self.hostile, *self.damaged][:_MAX_FINDINGS],
                fix="load files of people you trust only; where this one is yours, "
                "export it again without these parts.",
            )
        if self.damaged:
            raise FormatError(
                "The graph does not hold together.",
                findings=self.damaged[:_MAX_FINDINGS],
                fix="copy or export the file again; this one is damaged.",
            )

    def counts(self, meta_graph_def: MetaGraphDef) -> None:
        """Compares how many parts there are with the limits."""
        library = meta_graph_def.graph_def.library
        nodes = len(meta_graph_def.graph_def.node)
        nodes += sum(len(function.node_def) for function in library.function)
        self._at_most("nodes", nodes, self._limits.nodes)
        self._at_most("functions", len(library.function), self._limits.functions)
        self._at_most(
            "signatures", len(meta_graph_def.signature_def), self._limits.signatures
        )
        for key, collection in meta_graph_def.collection_def.items():
            kind = collection.WhichOneof("kind")
            count = len(getattr(collection, kind).value) if kind else 0
            self._at_most(
                f"values of the collection {key[:100]!r}",
                count,
                self._limits.collection_values,
            )

    def library(self, library: Any, functions: Mapping[str, FunctionDef]) -> None:
        """Checks names of functions, and that none calls itself through others."""
        self._unique((f.signature.name for f in library.function), "functions")
        taken = known_ops()
        for name in functions:
            if name in taken:
                self.hostile.append(f"a function takes the name of the op {name!r}")
            self._name(name, "function")
        gradients = {g.function_name: g.gradient_func for g in library.gradient}
        calls = {
            name: _calls(function.node_def, functions, gradients)
            for name, function in functions.items()
        }
        if circle := _circle(calls):
            self.hostile.append(
                f"functions call one another in a circle: {' -> '.join(circle)}"
            )

    def nodes(
        self, nodes: Iterable[NodeDef], where: str, arguments: Iterable[str]
    ) -> None:
        """Checks the nodes of the graph, or of one function's body."""
        known = Counter(arguments)
        known.update(node.name for node in nodes)
        for name, count in known.items():
            if count > 1:
                self.damaged.append(f"{where}{count} nodes are called {name!r}")
        waiting: dict[str, list[str]] = {}
        for node in nodes:
            place = f"{where}node {node.name[:200]!r}"
            self._node(node, place)
            sources = [_source(text) for text in node.input]
            waiting[node.name] = [s for s in sources if s in known]
            self.damaged.extend(
                f"{place} has an input {text!r}, which is not there"
                for text, source in zip(node.input, sources, strict=True)
                if source not in known or _index_length(text) > _INDEX_DIGITS
            )
        ops = {node.name: node.op for node in nodes}
        if stuck := _stuck(waiting, ops, arguments):
            self.damaged.append(f"{where}nodes wait for one another: {stuck[:10]}")

    def results(self, function: FunctionDef, arguments: Iterable[str]) -> None:
        """Checks that what a function returns is in its body."""
        known = {*arguments, *(node.name for node in function.node_def)}
        name = function.signature.name
        for text in (*function.ret.values(), *function.control_ret.values()):
            if _source(text) not in known:
                self.damaged.append(f"{name}: returns {text!r}, which is not there")
        self.damaged.extend(
            f"{name}: returns nothing as {arg.name!r}"
            for arg in function.signature.output_arg
            if arg.name not in function.ret
        )

    def _node(self, node: NodeDef, place: str) -> None:
        self._name(node.name, "node")
        if not node.op:
            self.damaged.append(f"{place} has no op")
        self._at_most(f"inputs of {place}", len(node.input), self._limits.inputs)
        self._at_most(f"attributes of {place}", len(node.attr), self._limits.attributes)
        for key, attr in node.attr.items():
            kind = attr.WhichOneof("value")
            if kind == "tensor":
                self._tensors(place, key, [attr.tensor])
            elif kind == "func":
                self._depth(place, key, attr)
            elif kind == "list":
                self._tensors(place, key, attr.list.tensor)
                if attr.list.func:
                    self._depth(place, key, attr)

    def _tensors(self, place: str, key: str, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if problem := tensor_problem(tensor, self._limits):
                line = f"{place}, attribute {key!r}: {problem}"
                bomb = "would take" in problem or "encoded object" in problem
                (self.hostile if bomb else self.damaged).append(line)

    def _depth(self, place: str, key: str, attr: Any) -> None:
        stack = [(attr, 0)]
        while stack:
            value, depth = stack.pop()
            if depth > self._limits.attribute_depth:
                self.hostile.append(
                    f"{place}, attribute {key!r}: functions are nested more than "
                    f"{self._limits.attribute_depth} deep"
                )
                return
            for func in (value.func, *value.list.func):
                stack.extend((inner, depth + 1) for inner in func.attr.values())

    def _name(self, name: str, what: str) -> None:
        if not name:
            self.damaged.append(f"a {what} has no name")
        elif len(name) > self._limits.name_length:
            self.hostile.append(f"a {what} has a name of {len(name)} characters")

    def _unique(self, names: Iterable[str], what: str) -> None:
        self.damaged.extend(
            f"{count} {what} are called {name!r}"
            for name, count in Counter(names).items()
            if count > 1
        )

    def _at_most(self, what: str, count: int, limit: int) -> None:
        if count > limit:
            self.hostile.append(f"{count:,} {what}, more than {limit:,}")


def _source(text: str) -> str:
    """The node that an input comes from: `^node`, `node`, `node:0`, `node:out:0`."""
    return text.removeprefix("^").partition(":")[0]


def _index_length(text: str) -> int:
    """Characters of the output's number in an input."""
    _, colon, index = text.rpartition(":")
    return len(index) if colon else 0


def _calls(
    nodes: Iterable[NodeDef],
    functions: Mapping[str, FunctionDef],
    gradients: Mapping[str, str],
) -> list[str]:
    """Functions that nodes call, by op or by attribute; each once."""
    called: dict[str, None] = {}
    for node in nodes:
        names = [node.op, *_attribute_functions(node)]
        if node.op == "SymbolicGradient":
            names += [gradients[name] for name in names if name in gradients]
        called.update(dict.fromkeys(name for name in names if name in functions))
    return list(called)


def _attribute_functions(node: NodeDef) -> Iterator[str]:
    stack = list(node.attr.values())
    while stack:
        value = stack.pop()
        kind = value.WhichOneof("value")
        if kind not in ("func", "list"):
            continue
        for func in [value.func] if kind == "func" else value.list.func:
            yield func.name
            stack.extend(func.attr.values())


def _circle(calls: Mapping[str, list[str]]) -> list[str]:
    """Functions that call one another in a circle, the first one again at its end."""
    done: set[str] = set()
    for root in calls:
        path: dict[str, Iterator[str]] = {}
        name: str | None = root
        while name is not None:
            if name in path:
                names = list(path)
                return [*names[names.index(name) :], name]
            if name not in done:
                path[name] = iter(calls[name])
            name = _next_call(path, done)
    return []


def _next_call(path: dict[str, Iterator[str]], done: set[str]) -> str | None:
    """The next call of the innermost function that has one left."""
    while path:
        last = next(reversed(path))
        for called in path[last]:
            if called not in done:
                return called
        done.add(last)
        del path[last]
    return None


def _stuck(
    waiting: Mapping[str, list[str]], ops: Mapping[str, str], ready: Iterable[str]
) -> list[str]:
    """Nodes that can never run: they wait in a circle that is not a while loop."""
    users: dict[str, list[str]] = {}
    open_inputs: dict[str, int] = {}
    for name, sources in waiting.items():
        # The way back of a while loop is no reason to wait.
        ahead = [s for s in sources if ops.get(s) not in _BACK_EDGES]
        open_inputs[name] = len(ahead)
        for source in ahead:
            users.setdefault(source, []).append(name)
    queue = deque([*ready, *(name for name, count in open_inputs.items() if not count)])
    finished = 0
    while queue:
        name = queue.popleft()
        finished += name in open_inputs
        for user in users.get(name, ()):
            open_inputs[user] -= 1
            if open_inputs[user] == 0:
                queue.append(user)
    if finished >= len(open_inputs):
        return []
    return [name for name, count in open_inputs.items() if count > 0]
