"""Elementwise updates of many arrays in one call: at the sizes of an agent, calls cost more than arithmetic.

Arrays are described by rows of sizes and addresses, as in `sparserl.kernels.cpu`; whoever builds the rows keeps the
arrays alive. `numbers` are of the arrays' element type.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from sparserl.kernels.vector import multiply_add, read_int64, read_real, write_real


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def average_and_trim(table: Any, numbers: Any) -> None:
    """Averages over the union of two topologies, then sets the smallest weights to 0.

    Args:
        table: (layers, 7) int64: connections and address of the target; connections and address of online; address of
            the target slot of each online slot; number of connections that only the target has, as many weights are
            trimmed; address of their slots.
        numbers: (2,) tau, 1 - tau.
    """
    tau, rest = numbers
    for layer in range(table.shape[0]):
        size, targets, online_size, onlines, shared, surplus, target_only = table[layer]
        for slot in range(size):
            write_real(targets, slot, read_real(targets, slot, tau) * rest, tau)
        for slot in range(online_size):
            to = read_int64(shared, slot)
            moved = multiply_add(read_real(onlines, slot, tau), tau, read_real(targets, to, tau))
            write_real(targets, to, moved, tau)
        if surplus == 0:
            continue
        # As many connections are in the target alone, so whatever goes is no larger than the largest of them.
        limit = abs(read_real(targets, read_int64(target_only, 0), tau))
        for entry in range(1, surplus):
            limit = max(limit, abs(read_real(targets, read_int64(target_only, entry), tau)))
        magnitudes, count = np.empty(size, numbers.dtype), 0
        for slot in range(size):
            magnitude = abs(read_real(targets, slot, tau))
            if magnitude <= limit:
                magnitudes[count] = magnitude
                count += 1
        if count > surplus:
            limit = np.partition(magnitudes[:count], surplus - 1)[surplus - 1]
        ties = surplus
        for entry in range(count):
            ties -= magnitudes[entry] < limit
        for slot in range(size):
            magnitude = abs(read_real(targets, slot, tau))
            if magnitude < limit or (magnitude == limit and ties > 0):
                ties -= magnitude == limit
                write_real(targets, slot, 0.0, tau)


@numba.njit(cache=True, nogil=True)
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
