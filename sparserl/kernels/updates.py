"""Elementwise updates of many arrays in one call: at the sizes of an agent, calls cost more than arithmetic.

Arrays are described by rows of sizes and addresses, as in `sparserl.kernels.cpu`; whoever builds the rows keeps the
arrays alive. `numbers` are of the arrays' element type.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparserl.kernels.compiled import compiled
from sparserl.kernels.vector import multiply_add, read_int64, read_real, write_real

HALVINGS = 8
"""Times that a bound on what is trimmed is halved at most, as long as enough stays within it."""


@compiled(error_model="numpy")
def adam(table: Any, numbers: Any) -> None:
    """One step of Adam.

    Args:
        table: (arrays, 5) int64: size; addresses of parameter, gradient, first and second moment.
        numbers: (6,) beta1, beta2, epsilon, weight decay (added to the gradient), learning rate / (1 - beta1^t),
            sqrt(1 - beta2^t) at step t.

    Source:
        Kingma & Ba 2015, Algorithm 1, with the operations of torch's Adam.
    """
    beta1, beta2, epsilon, weight_decay, step_size, root = numbers
    one = numbers.dtype.type(1)
    for array in range(table.shape[0]):
        size, parameters, gradients, firsts, seconds = table[array]
        for entry in range(size):
            parameter = read_real(parameters, entry, one)
            gradient = read_real(gradients, entry, one) + weight_decay * parameter
            first = read_real(firsts, entry, one)
            first += (one - beta1) * (gradient - first)
            second = beta2 * read_real(seconds, entry, one) + (one - beta2) * gradient * gradient
            write_real(firsts, entry, first, one)
            write_real(seconds, entry, second, one)
            moved = parameter - step_size * first / (math.sqrt(second) / root + epsilon)
            write_real(parameters, entry, moved, one)


@compiled()
def average(table: Any, numbers: Any) -> None:
    """`target = tau online + (1 - tau) target`.

    Args:
        table: (arrays, 3) int64: size; addresses of online and target.
        numbers: (2,) tau, 1 - tau.
    """
    tau, rest = numbers
    for array in range(table.shape[0]):
        size, onlines, targets = table[array]
        for entry in range(size):
            faded = read_real(targets, entry, tau) * rest
            write_real(targets, entry, multiply_add(read_real(onlines, entry, tau), tau, faded), tau)


@compiled()
def _count_up_to(limit: Any, values: int, size: int) -> int:
    """How many of the values at an address are no larger in magnitude: a loop that is compiled to vector code."""
    count = np.int32(0)
    for slot in range(size):
        count += np.int32(abs(read_real(values, slot, limit)) <= limit)
    return int(count)


@compiled()
def average_and_trim(table: Any, numbers: Any) -> None:
    """Averages over the connections of a target that contain those of online, then sets its smallest weights to 0.

    Args:
        table: (layers, 5) int64: connections of the target; addresses of online and target; number of connections that
            only the target has, >= 1, as many weights are trimmed; address of their slots, increasing.
        numbers: (2,) tau, 1 - tau.
    """
    tau, rest = numbers
    two = numbers.dtype.type(2)
    for layer in range(table.shape[0]):
        size, onlines, targets, surplus, target_only = table[layer]
        # Slots correspond in runs: between two connections that only the target has, both have the same ones.
        limit, start = tau - tau, 0
        for passed in range(surplus + 1):
            stop = read_int64(target_only, passed) if passed < surplus else size
            for slot in range(start, stop):
                faded = read_real(targets, slot, tau) * rest
                online = read_real(onlines, slot - passed, tau)
                write_real(targets, slot, multiply_add(online, tau, faded), tau)
            if passed < surplus:
                faded = read_real(targets, stop, tau) * rest
                write_real(targets, stop, faded, tau)
                limit = max(limit, abs(faded))
            start = stop + 1
        # As many connections are in the target alone, so whatever is trimmed is no larger than the largest of them.
        for _ in range(HALVINGS):
            if _count_up_to(limit / two, targets, size) < surplus:
                break
            limit /= two
        magnitudes, count = np.empty(size, numbers.dtype), 0
        for slot in range(size):
            magnitude = abs(read_real(targets, slot, tau))
            magnitudes[count] = magnitude
            count += magnitude <= limit  # no branch: the predictor would miss most of them
        if count > surplus:
            limit = np.partition(magnitudes[:count], surplus - 1)[surplus - 1]
        ties = surplus - np.count_nonzero(magnitudes[:count] < limit)
        for slot in range(size):
            value = read_real(targets, slot, tau)
            write_real(targets, slot, tau - tau if abs(value) < limit else value, tau)
        slot = 0
        while ties > 0 and slot < size:
            if abs(read_real(targets, slot, tau)) == limit:
                ties -= 1
                write_real(targets, slot, 0.0, tau)
            slot += 1


@compiled()
def gather_transitions(
    observations: Any,
    actions: Any,
    following: Any,
    dones: Any,
    timeouts: Any,
    rewards: Any,
    rows: Any,
    columns: Any,
    out: Any,
) -> None:
    """Copies transitions out of a replay buffer, whatever its element types.

    Args:
        observations: (size, envs, width), as `actions` and `following`, the next observations.
        actions: Likewise.
        following: Likewise.
        dones: (size, envs), as `timeouts` and `rewards`.
        timeouts: 1 where a time limit ended the episode, which does not count as done.
        rewards: Likewise.
        rows: (B,) places in the first dimension.
        columns: (B,) places in the second.
        out: (B, width) observations, actions, next observations, (B, 1) dones and rewards to fill.
    """
    observed, acted, followed, done, rewarded = out
    for place in range(rows.size):
        row, column = rows[place], columns[place]
        for entry in range(observations.shape[2]):
            observed[place, entry] = observations[row, column, entry]
            followed[place, entry] = following[row, column, entry]
        for entry in range(actions.shape[2]):
            acted[place, entry] = actions[row, column, entry]
        done[place, 0] = dones[row, column] * (1 - timeouts[row, column])
        rewarded[place, 0] = rewards[row, column]
