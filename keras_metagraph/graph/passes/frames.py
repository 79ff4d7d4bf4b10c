"""Finds the frames of v1 while loops: which node runs in which loop."""

import dataclasses

from keras_metagraph.errors import PassError
from keras_metagraph.graph import walk
from keras_metagraph.graph.ir import Graph, Node


@dataclasses.dataclass(slots=True, eq=False)
class Frame:
    """One v1 while loop.

    Attributes:
        name: Its `frame_name`.
        parent: The frame around it; `None` for the graph itself.
        depth: 1 for a loop in no other loop.
        nodes: Names of the nodes in it, its `Enter` and `Exit` nodes included.
    """

    name: str
    parent: "Frame | None"
    depth: int
    nodes: list[str] = dataclasses.field(default_factory=list)


def find_frames(graph: Graph) -> list[Frame]:
    """The frames of a graph, inner ones before those around them.

    Args:
        graph: A graph without references (`resource_variables`).

    Raises:
        PassError: If a node has inputs from frames that do not lie in each other.
    """
    frames: dict[tuple[int, str], Frame] = {}
    frame_of: dict[str, Frame | None] = {}
    conflicts: list[str] = []
    for node in walk.schedule(graph, loops=True):
        frame = _input_frame(node, frame_of, conflicts)
        if node.op == "Enter":
            name = node.attrs["frame_name"].s.decode()
            key = (id(frame), name)
            if key not in frames:
                depth = 1 if frame is None else frame.depth + 1
                frames[key] = Frame(name, frame, depth)
            frame = frames[key]
        if frame is not None:
            frame.nodes.append(node.name)
        if node.op == "Exit":
            if frame is None:
                conflicts.append(f"{node.name} leaves a loop, but is in none")
                continue
            frame = frame.parent
        frame_of[node.name] = frame
    if conflicts:
        raise PassError(
            "The while loops of the graph are not nested as TensorFlow demands.",
            findings=conflicts,
            fix="export the model again; the graph is damaged.",
        )
    return sorted(frames.values(), key=lambda frame: -frame.depth)


def _input_frame(
    node: Node, frame_of: dict[str, Frame | None], conflicts: list[str]
) -> Frame | None:
    """The innermost frame of a node's inputs; the others must lie around it."""
    innermost: Frame | None = None
    seen: list[Frame] = []
    for name in node.predecessors():
        frame = frame_of.get(name)
        if frame is None:
            continue
        if frame not in seen:
            seen.append(frame)
        if innermost is None or frame.depth > innermost.depth:
            innermost = frame
    around: list[Frame] = []
    outer = innermost
    while len(seen) > 1 and outer is not None:
        around.append(outer)
        outer = outer.parent
    if len(seen) > 1 and any(frame not in around for frame in seen):
        conflicts.append(f"{node.name} has inputs from several loops")
    return innermost
