"""Elementwise updates of many arrays in one step: at the sizes of an agent, calls cost more than arithmetic.

Arrays are described by rows of sizes and addresses, as in `sparserl.kernels.cpu`; the caller that builds the rows keeps
the arrays alive. Arguments of a step are the address of its rows, their number, and the address of its numbers in
double precision, which are rounded to the arrays' element type where torch does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparserl.kernels.compiled import compiled
from sparserl.kernels.program import step_function
from sparserl.kernels.vector import array_at, int64_array, multiply_add, read_int64, read_real, write_real

CLIP_EPSILON = 1e-6
"""Added to a norm that gradients are divided by; as in torch."""
HALVINGS = 8
"""Times that a bound on what is trimmed is halved at most, as long as enough stays within it."""


@step_function(error_model="numpy")
def adam_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """One step of Adam, but for the clock.

    Rows: size; addresses of parameter, gradient, first and second moment. Numbers: beta1, beta2, epsilon, weight decay
    (added to the gradient), learning rate, share of a parameter that is kept before the step (below 1: decoupled weight
    decay). Then the address of the clock, steps so far in float32.

    Source:
        Kingma & Ba 2015, Algorithm 1; Loshchilov & Hutter 2019, Algorithm 2, with the operations of torch's Adam.
    """
    call = int64_array(arguments, (4,))
    rows, numbers = int64_array(call[0], (call[1], 5)), array_at(call[2], (6,), 0.0)
    step = np.float64(array_at(call[3], (1,), np.float32(0))[0]) + 1.0
    real = np.empty(7, type(zero))
    real[0], real[1], real[2], real[3], real[6] = numbers[0], numbers[1], numbers[2], numbers[3], numbers[5]
    real[4], real[5] = numbers[4] / (1 - numbers[0] ** step), math.sqrt(1 - numbers[1] ** step)
    beta1, beta2, epsilon, weight_decay, step_size, root, kept = real
    one = zero + type(zero)(1)
    for array in range(rows.shape[0]):
        size, parameters, gradients, firsts, seconds = rows[array]
        for entry in range(size * share // shares, size * (share + 1) // shares):
            parameter = read_real(parameters, entry, one) * kept
            gradient = read_real(gradients, entry, one) + weight_decay * parameter
            first = read_real(firsts, entry, one)
            first += (one - beta1) * (gradient - first)
            second = beta2 * read_real(seconds, entry, one) + (one - beta2) * gradient * gradient
            write_real(firsts, entry, first, one)
            write_real(seconds, entry, second, one)
            moved = parameter - step_size * first / (math.sqrt(second) / root + epsilon)
            write_real(parameters, entry, moved, one)


@step_function(error_model="numpy")
def adam_of_clocks_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """One step of Adam in which each entry has a clock of its own, which ticks here.

    Rows: as of `adam_step`, then the address of the clocks, steps of each entry so far in float32. Numbers: the same.
    """
    call = int64_array(arguments, (3,))
    rows, numbers = int64_array(call[0], (call[1], 6)), array_at(call[2], (6,), 0.0)
    real = np.empty(7, type(zero))
    real[0], real[1], real[2], real[3], real[6] = numbers[0], numbers[1], numbers[2], numbers[3], numbers[5]
    beta1, beta2, epsilon, weight_decay, kept = real[0], real[1], real[2], real[3], real[6]
    one, tick, last = zero + type(zero)(1), np.float32(1), np.float32(0)
    for array in range(rows.shape[0]):
        size, parameters, gradients, firsts, seconds, clocks = rows[array]
        for entry in range(size * share // shares, size * (share + 1) // shares):
            now = read_real(clocks, entry, tick) + tick
            write_real(clocks, entry, now, tick)
            if now != last:  # most entries are as old as the one before
                last, step = now, np.float64(now)
                real[4], real[5] = numbers[4] / (1 - numbers[0] ** step), math.sqrt(1 - numbers[1] ** step)
            parameter = read_real(parameters, entry, one) * kept
            gradient = read_real(gradients, entry, one) + weight_decay * parameter
            first = read_real(firsts, entry, one)
            first += (one - beta1) * (gradient - first)
            second = beta2 * read_real(seconds, entry, one) + (one - beta2) * gradient * gradient
            write_real(firsts, entry, first, one)
            write_real(seconds, entry, second, one)
            moved = parameter - real[4] * first / (math.sqrt(second) / real[5] + epsilon)
            write_real(parameters, entry, moved, one)


@step_function()
def tick_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Adds 1 to the clock of `adam_step`, whose arguments it has."""
    if share == 0:
        clock = array_at(int64_array(arguments, (4,))[3], (1,), np.float32(0))
        clock[0] += np.float32(1)


@step_function()
def average_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """`target = tau online + (1 - tau) target`.

    Rows: size; addresses of online and target. Numbers: tau.
    """
    call = int64_array(arguments, (3,))
    rows, numbers = int64_array(call[0], (call[1], 3)), array_at(call[2], (1,), 0.0)
    tau, rest = type(zero)(numbers[0]), type(zero)(1.0 - numbers[0])
    for array in range(rows.shape[0]):
        size, onlines, targets = rows[array]
        for entry in range(size * share // shares, size * (share + 1) // shares):
            faded = read_real(targets, entry, tau) * rest
            write_real(targets, entry, multiply_add(read_real(onlines, entry, tau), tau, faded), tau)


@step_function(error_model="numpy")
def clip_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Scales gradients down so that their norm, that of all together, is at most a number; in one share.

    Rows: size; address of a gradient. Numbers: the most.

    Source:
        Pascanu et al. 2013, Algorithm 1, with the operations of torch's `clip_grad_norm_`.
    """
    if share > 0:
        return
    call = int64_array(arguments, (3,))
    rows, most = int64_array(call[0], (call[1], 2)), array_at(call[2], (1,), 0.0)[0]
    total = 0.0
    for array in range(rows.shape[0]):
        size, gradients = rows[array]
        for entry in range(size):
            gradient = np.float64(read_real(gradients, entry, zero))
            total += gradient * gradient
    factor = most / (math.sqrt(total) + CLIP_EPSILON)
    if factor >= 1.0:
        return
    scale = type(zero)(factor)
    for array in range(rows.shape[0]):
        size, gradients = rows[array]
        for entry in range(size):
            write_real(gradients, entry, read_real(gradients, entry, zero) * scale, zero)


@compiled()
def _count_up_to(limit: Any, values: int, size: int) -> int:
    """How many of the values at an address are no larger in magnitude: a loop that is compiled to vector code."""
    count = np.int32(0)
    for slot in range(size):
        count += np.int32(abs(read_real(values, slot, limit)) <= limit)
    return int(count)


@compiled()
def _smallest(numbers: Any, index: int) -> Any:
    """The number that `index` others come before in increasing order; moves numbers around (Hoare's selection).

    NumPy's partition would take longer to compile than all other kernels together.
    """
    low, high = 0, numbers.size - 1
    while low < high:
        pivot, left, right = numbers[(low + high) // 2], low, high
        while left <= right:
            while numbers[left] < pivot:
                left += 1
            while numbers[right] > pivot:
                right -= 1
            if left <= right:
                numbers[left], numbers[right] = numbers[right], numbers[left]
                left, right = left + 1, right - 1
        if index <= right:
            high = right
        elif index >= left:
            low = left
        else:
            break
    return numbers[index]


@step_function()
def average_and_trim_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Averages over the connections of a target that contain those of online, then sets its smallest weights to 0.

    Rows: connections of the target; addresses of online and target; number of connections that only the target has,
    >= 1, as many weights are trimmed; address of their slots, increasing. Numbers: tau.
    """
    call = int64_array(arguments, (3,))
    rows, numbers = int64_array(call[0], (call[1], 5)), array_at(call[2], (1,), 0.0)
    tau, rest, two = type(zero)(numbers[0]), type(zero)(1.0 - numbers[0]), type(zero)(2)
    for layer in range(share, rows.shape[0], shares):
        size, onlines, targets, surplus, target_only = rows[layer]
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
        magnitudes, count = np.empty(size, type(zero)), 0
        for slot in range(size):
            magnitude = abs(read_real(targets, slot, tau))
            magnitudes[count] = magnitude
            count += magnitude <= limit  # no branch: the predictor would miss most of them
        if count > surplus:
            limit = _smallest(magnitudes[:count], surplus - 1)
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


@step_function()
def gather_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Copies transitions of one step out of a replay buffer.

    Arguments: transitions to copy; environments, widths of observations and actions; bytes of a number in stored
    observations (8: float64, 4: float32) and in actions (8: int64, 4: float32); addresses of stored observations
    (size, envs, width), actions, next observations, dones (size, envs), timeouts (1 where a time limit ended the
    episode, which does not count as done) and rewards; of the (B,) indices in the first and second dimension; and of
    the results.
    """
    call = int64_array(arguments, (19,))
    count, envs, width, acted, size, of_actions = call[0], call[1], call[2], call[3], call[4], call[5]
    for index in range(count * share // shares, count * (share + 1) // shares):
        at = read_int64(call[12], index) * envs + read_int64(call[13], index)
        for entry in range(width):
            write_real(call[14], index * width + entry, _stored(call[6], at * width + entry, size, zero), zero)
            write_real(call[16], index * width + entry, _stored(call[8], at * width + entry, size, zero), zero)
        for entry in range(acted):
            write_real(call[15], index * acted + entry, _action(call[7], at * acted + entry, of_actions, zero), zero)
        done = read_real(call[9], at, np.float32(0)) * (np.float32(1) - read_real(call[10], at, np.float32(0)))
        write_real(call[17], index, done, zero)
        write_real(call[18], index, read_real(call[11], at, np.float32(0)), zero)


@compiled()
def _stored(address: int, entry: int, size: int, zero: Any) -> Any:
    if size == 8:
        return zero + read_real(address, entry, 0.0)
    return zero + np.float64(read_real(address, entry, np.float32(0)))


@compiled()
def _action(address: int, entry: int, size: int, zero: Any) -> Any:
    if size == 8:
        return zero + type(zero)(read_int64(address, entry))
    return zero + type(zero)(read_real(address, entry, np.float32(0)))


STEPS = (adam_step, tick_step, average_step, average_and_trim_step, gather_step)
"""What every update may need, whatever the agent."""
