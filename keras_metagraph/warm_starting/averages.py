"""Lets variables come from the moving averages that the file keeps of them."""

import dataclasses
from collections.abc import Sequence

from keras_metagraph.errors import nearest
from keras_metagraph.graph.variables import VARIABLE_OPS
from keras_metagraph.loading.moving_averages import find_moving_averages, shadow_key
from keras_metagraph.warm_starting.findings import Findings
from keras_metagraph.warm_starting.sources import Source
from keras_metagraph.warm_starting.transfers import Transfer


def take_averages(
    plans: Sequence[Transfer], source: Source, findings: Findings
) -> list[Transfer]:
    """Replaces the tensors of trainable variables by their moving averages.

    Args:
        plans: The transfers.
        source: Where the tensors are.
        findings: Gets the variables that have no moving average.

    Returns:
        The transfers; those of variables that are not trained are as they were.
    """
    shadows = _shadows(source)
    result = []
    for plan in plans:
        if not any(target.trainable for target in plan.targets):
            result.append(plan)
            continue
        found = [shadows.get(name) or _by_name(name, source) for name in plan.sources]
        averages = tuple(name for name in found if name is not None)
        if len(averages) < len(found):
            for target in plan.targets:
                near = nearest(target.name, source.tensors)
                findings.missing[target.name] = (
                    f"{target.name}: no moving average of {plan.sources}{near}"
                )
            continue
        result.append(
            dataclasses.replace(
                plan,
                sources=averages,
                how=f"{plan.how}, averaged",
                slots_of=plan.sources,
            )
        )
    return result


def _shadows(source: Source) -> dict[str, str]:
    """The moving averages that the graph beside a checkpoint keeps, by name."""
    if source.graph is None:
        return {}
    nodes = source.graph.nodes.values()
    variables = {node.name for node in nodes if node.op in VARIABLE_OPS}
    found = find_moving_averages(source.graph, variables).shadows
    names = {name: source.find(shadow) for name, shadow in found.items()}
    return {name: stored for name, stored in names.items() if stored is not None}


def _by_name(name: str, source: Source) -> str | None:
    """A moving average of TensorFlow 1, or of an optimizer of Keras with `use_ema`."""
    found = shadow_key(name, source.tensors.keys())
    if found is not None:
        return found
    keras_name = f"/{name.replace('/', '_')}_average"
    averages = [other for other in source.tensors if other.endswith(keras_name)]
    return averages[0] if len(averages) == 1 else None
