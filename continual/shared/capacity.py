"""Whether sub-networks of all tasks have room between the neurons that earlier ones leave free."""

from __future__ import annotations

from collections.abc import Sequence

from sparserl.errors import ConfigError


def no_room(
    task: int, n_tasks: int, layer: str, wanted: int, sides: tuple[int, int], room_used: int, advice: str = ""
) -> ConfigError:
    """That a task has no room for its connections in a layer, with the numbers.

    Args:
        task: Needs them.
        n_tasks: All tasks.
        layer: What to call the layer.
        wanted: Connections of the task.
        sides: Neurons that are open to it: those that feed the layer, and its outputs.
        room_used: Connections of earlier tasks between them.
        advice: What else helps than more neurons, as a clause.
    """
    return ConfigError(
        f"task {task + 1} of {n_tasks} needs {wanted} connections in layer {layer}, where {sides[0]} x {sides[1]} "
        f"free neurons have room for {sides[0] * sides[1]}, {room_used} of it taken by earlier tasks: use more hidden "
        f"neurons{advice}"
    )


def check_capacity(
    connections: Sequence[Sequence[int]],
    n_in: int,
    hidden: Sequence[int],
    reserved: Sequence[int],
    *,
    outputs: Sequence[int] = (),
    archived: bool = False,
    name: str = "",
    advice: str = "",
) -> None:
    """Raises ConfigError, with the numbers, unless every task has room, wherever earlier ones put their connections.

    Args:
        connections: Of each task, in each layer.
        n_in: Inputs of the first layer.
        hidden: Neurons of each hidden layer.
        reserved: Those of each that a task closes to later ones.
        outputs: Output neurons of each task, if an output layer follows the hidden ones.
        archived: Whether connections of earlier tasks in that output layer are away.
        name: Of the network, where there are several.
        advice: As `no_room` takes it.
    """
    for task, of_task in enumerate(connections):
        free = [max(0, neurons - task * closed) for neurons, closed in zip(hidden, reserved, strict=True)]
        sides = [n_in, *free, *outputs[task : task + 1]]
        for index, wanted in enumerate(of_task):
            away = archived and index == len(hidden)
            earlier = 0 if away else sum(one[index] for one in connections[:task])
            if sides[index] * sides[index + 1] - earlier < wanted:
                layer = f"{name}.{index}" if name else str(index)
                raise no_room(task, len(connections), layer, wanted, (sides[index], sides[index + 1]), earlier, advice)
