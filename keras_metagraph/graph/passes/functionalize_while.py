"""v1 while loops -> `While` nodes.

A loop of TensorFlow 1 is a frame: `Enter` brings values in, `Merge` joins them with
those of the last iteration, `Switch` on the `LoopCond` sends them to the body or to an
`Exit`, `NextIteration` closes the circle. Its loop variables become the loop variables
of a `While`, what only enters it follows them as invariants. `Exit` nodes stay under
their names as `Identity`.
"""

import dataclasses

from keras_metagraph.errors import PassError
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.frames import Frame, find_frames
from keras_metagraph.graph.passes.regions import cut_region, make_function
from keras_metagraph.graph.passes.repair_attributes import RECORDED_SHAPES
from keras_metagraph.graph.passes.result import PassResult


def functionalize_while(graph: Graph) -> PassResult:
    """Makes `While` nodes of all v1 loops of a graph.

    Args:
        graph: A graph without references, cut down to what shall run.

    Raises:
        PassError: If a loop is not built as `tf.while_loop` builds it.
    """
    if not any(node.op == "Enter" for node in graph.nodes.values()):
        return PassResult(graph, False)
    frames = find_frames(graph)
    work = Graph(dict(graph.nodes), dict(graph.functions), graph.producer)
    for frame in frames:
        _Loop(work, frame).replace()
    return PassResult(work, True)


@dataclasses.dataclass(slots=True)
class _Variable:
    """One loop variable."""

    enter: Node
    merge: Node
    following: TensorName  # what the NextIteration takes
    controls: list[str]  # what the NextIteration waits for


class _Loop:
    """One loop on its way to a `While` node; the graph is changed in place."""

    def __init__(self, graph: Graph, frame: Frame) -> None:
        self._graph = graph
        self._frame = frame
        self._names = set(frame.nodes)
        self._nodes = [graph.nodes[n] for n in frame.nodes if n in graph.nodes]
        self._variables = self._find_variables()
        self._predicate = self._find_predicate()
        self._arguments: dict[TensorName, TensorName] = {}
        self._constants: list[Node] = []
        self._invariants: list[Node] = []
        self._name_arguments()

    def replace(self) -> None:
        """Puts a `While` and copies of its outputs in the place of the loop."""
        library = self._graph.functions
        condition = self._function("cond", [self._predicate], [], library)
        following = [variable.following for variable in self._variables]
        invariants = [TensorName(enter.name) for enter in self._invariants]
        waited = [name for variable in self._variables for name in variable.controls]
        body = self._function("body", following + invariants, waited, library)
        loop = self._while_node(condition, body)
        exits = self._exits(loop.name)
        for node in self._nodes:
            self._graph.nodes.pop(node.name, None)
        self._graph.add(loop)
        for node in exits:
            self._graph.add(node)
        if self._frame.parent is not None:
            self._frame.parent.nodes.append(loop.name)
            self._frame.parent.nodes.extend(node.name for node in exits)

    # A region's boundary: arguments stand for what enters, merges and switches.

    def argument(self, tensor: TensorName) -> TensorName | None:
        """What stands for a tensor in the functions of the loop."""
        return self._arguments.get(tensor)

    def inside(self, name: str) -> bool:
        """Whether a node belongs to the functions of the loop."""
        node = self._graph.nodes[name]
        if name not in self._names:
            return False
        return node.op not in ("Enter", "Merge", "Switch", "LoopCond") or (
            node.op == "Switch" and not self._is_loop_switch(node)
        )

    def _find_variables(self) -> list[_Variable]:
        enters = {n.name: n for n in self._nodes if n.op == "Enter"}
        variables = []
        for merge in self._nodes:
            if merge.op != "Merge":
                continue
            sources = [self._graph.nodes[tensor.node] for tensor in merge.inputs]
            closing = [node for node in sources if node.op == "NextIteration"]
            entering = [node for node in sources if node.name in enters]
            if not closing and not entering:
                continue  # of a condition inside the loop
            if len(closing) != 1 or len(entering) != 1 or len(sources) != 2:
                raise self._error(f"{merge.name} joins {[n.name for n in sources]}")
            closing_node = closing[0]
            variables.append(
                _Variable(
                    entering[0],
                    merge,
                    closing_node.inputs[0],
                    closing_node.control_inputs,
                )
            )
        places = {name: place for place, name in enumerate(self._frame.nodes)}
        return sorted(variables, key=lambda variable: places[variable.enter.name])

    def _find_predicate(self) -> TensorName:
        found = [node for node in self._nodes if node.op == "LoopCond"]
        if len(found) != 1:
            raise self._error(f"it has {len(found)} LoopCond nodes, expected one")
        self._condition = found[0].name
        return found[0].inputs[0]

    def _is_loop_switch(self, node: Node) -> bool:
        return node.op == "Switch" and node.inputs[1].node == self._condition

    def _name_arguments(self) -> None:
        """Arguments are called as the `Enter` that brings their value."""
        of_merge: dict[str, str] = {}
        for variable in self._variables:
            of_merge[variable.merge.name] = variable.enter.name
            argument = TensorName(variable.enter.name)
            self._arguments[TensorName(variable.merge.name)] = argument
        for node in self._nodes:
            if self._is_loop_switch(node):
                source = of_merge.get(node.inputs[0].node)
                if source is None:
                    raise self._error(f"{node.name} switches {node.inputs[0]}")
                self._arguments[TensorName(node.name, 1)] = TensorName(source)
            elif node.op == "Enter" and node.name not in of_merge.values():
                self._arguments[TensorName(node.name)] = TensorName(node.name)
                source_node = self._graph.nodes[node.inputs[0].node]
                if source_node.op == "Const" and not source_node.control_inputs:
                    constant = dataclasses.replace(source_node, name=node.name)
                    self._constants.append(constant)
                else:
                    self._invariants.append(node)

    def _function(
        self,
        kind: str,
        results: list[TensorName],
        controls: list[str],
        library: dict[str, Function],
    ) -> Function:
        region = cut_region(self._graph, results, controls, self)
        enters = [variable.enter for variable in self._variables] + self._invariants
        return make_function(
            f"{self._frame.name}_{kind}",
            [(enter.name, build.dtype_of(enter, "T")) for enter in enters],
            self._constants,
            region,
            library,
        )

    def _while_node(self, condition: Function, body: Function) -> Node:
        enters = [variable.enter for variable in self._variables] + self._invariants
        constants = {constant.name for constant in self._constants}
        controls = dict.fromkeys(
            name
            for node in self._nodes
            if node.op == "Enter" and node.name not in constants
            for name in node.control_inputs
        )
        attrs = {
            "T": build.types_attr(build.dtype_of(enter, "T") for enter in enters),
            "cond": build.function_attr(condition.name),
            "body": build.function_attr(body.name),
            "output_shapes": self._shapes(enters),
        }
        if "parallel_iterations" in enters[0].attrs:
            attrs["parallel_iterations"] = enters[0].attrs["parallel_iterations"]
        inputs = [enter.inputs[0] for enter in enters]
        name = self._graph.unique_name(f"{self._frame.name}/While")
        return Node(name, "While", inputs, list(controls), attrs)

    def _shapes(self, enters: list[Node]) -> object:
        """Shapes that hold in every iteration, as recorded for the merges."""
        merges = {variable.enter.name: variable.merge for variable in self._variables}
        value = build.shapes_attr([])
        for enter in enters:
            node = merges.get(enter.name, enter)
            recorded = node.attrs.get(RECORDED_SHAPES)
            if recorded is not None and len(recorded.list.shape):
                value.list.shape.append(recorded.list.shape[0])
            else:
                value.list.shape.add(unknown_rank=True)
        return value

    def _exits(self, loop: str) -> list[Node]:
        outputs = {}
        for place, variable in enumerate(self._variables):
            outputs[variable.merge.name] = place
        exits = []
        for node in self._nodes:
            if node.op != "Exit":
                continue
            source = self._graph.nodes[node.inputs[0].node]
            merge = source.inputs[0].node if self._is_loop_switch(source) else ""
            if merge not in outputs:
                raise self._error(f"{node.name} takes {node.inputs[0]}")
            keep = ("T", RECORDED_SHAPES)
            attrs = {key: node.attrs[key] for key in keep if key in node.attrs}
            output = TensorName(loop, outputs[merge])
            controls = list(node.control_inputs)
            exits.append(Node(node.name, "Identity", [output], controls, attrs))
        return exits

    def _error(self, finding: str) -> PassError:
        return PassError(
            f"The while loop {self._frame.name!r} is not built as tf.while_loop "
            "builds it.",
            findings=[finding],
            fix="run the graph with the session executor.",
        )
