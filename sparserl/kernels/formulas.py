"""What stands between the passes of an update, as steps: targets, losses and their derivatives.

Arguments are as `Formula` gives them: a number, then matrices of which the last ones are results. Sums are formed in
double precision. Derivatives are written by hand; the tests compare them with those of autograd.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparserl.kernels.compiled import compiled
from sparserl.kernels.deferred import Shape, formula
from sparserl.kernels.vector import array_at, read_int64

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""Bounds of the log standard deviation of a policy; as in Stable-Baselines3."""
EPSILON = 1e-6
"""Keeps the logarithm finite where an action touches its bound; as in Stable-Baselines3."""
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def _like_first(shape: Shape, *others: Shape) -> list[Shape]:
    del others
    return [shape]


@compiled()
def _matrix(arguments: int, index: int, zero: Any) -> Any:
    """Input or result number `index`."""
    rows, columns = read_int64(arguments, 3 * index + 2), read_int64(arguments, 3 * index + 3)
    return array_at(read_int64(arguments, 3 * index + 1), (rows, columns), zero)


@compiled()
def _number(arguments: int) -> float:
    return float(array_at(read_int64(arguments, 0), (1,), 0.0)[0])


@compiled()
def _clip(x: float, low: float, high: float) -> float:
    """What is not a number passes."""
    return low if x < low else high if x > high else x


@compiled()
def _tanh(x: float) -> float:
    """In a fraction of the time of the library's, and as exact once it is rounded to float32."""
    if abs(x) < 1e-3:
        return x - x * x * x / 3
    if abs(x) > 20:  # as close to the limit as floats come
        return math.copysign(1.0, x)
    grown = math.exp(2 * x)
    return (grown - 1) / (grown + 1)


@formula(_like_first)
def tanh(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of (rows, n): (rows, n)."""
    x, y = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero)
    for row in range(share, x.shape[0], shares):
        for column in range(x.shape[1]):
            y[row, column] = _tanh(x[row, column])


@formula(_like_first)
def through_tanh(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of the derivative (rows, n) by the results of `tanh` and these results: that by its input."""
    by_y, y, by_x = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    for row in range(share, y.shape[0], shares):
        for column in range(y.shape[1]):
            by_x[row, column] = by_y[row, column] * (type(zero)(1) - y[row, column] * y[row, column])


@formula(_like_first)
def smoothed(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of actions (B, A) and noise (B, A): actions (B, A) in [-1, 1] (Fujimoto et al. 2018, equation 14)."""
    actions, noise, result = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    for row in range(share, actions.shape[0], shares):
        for column in range(actions.shape[1]):
            result[row, column] = _clip(actions[row, column] + noise[row, column], -1.0, 1.0)


@compiled()
def _lowest(q_values: Any, sample: int) -> int:
    """The critic of the lowest value; one that is not a number, if there is one, as in torch."""
    critic = 0
    for other in range(1, q_values.shape[0]):
        q = q_values[other, sample]
        if q < q_values[critic, sample] or np.isnan(q):
            critic = other
    return critic


@compiled()
def _raised(q_values: Any, sample: int, of_mean: bool, part: Any, by_q_values: Any) -> float:
    """The value of the critics that a policy raises, their mean or the lowest; -`part` times its derivative by them."""
    critics = q_values.shape[0]
    weight = -part / type(part)(critics) if of_mean else type(part)(0)
    total = 0.0
    for critic in range(critics):
        by_q_values[critic, sample] = weight
        total += float(q_values[critic, sample])
    mean: float = total / critics
    if of_mean:
        return mean
    critic = _lowest(q_values, sample)
    by_q_values[critic, sample] = -part
    return float(q_values[critic, sample])


@formula(lambda critics, q_values: [(critics[0], *q_values[1:])])
def selected(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of numbers of critics (M,) and values (critics, B, 1): the values (M, B, 1) of those."""
    critics, q_values, result = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    for index in range(share, critics.shape[0], shares):
        critic = int(critics[index, 0])
        for row in range(q_values.shape[1]):
            result[index, row] = q_values[critic, row]


@formula(lambda q_values: [(1,)])
def disagreement(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of values (critics, B, 1): their standard deviation over critics (divisor: critics), mean over the batch (1,)."""
    q_values, result = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero)
    if share > 0:
        return
    critics, rows, total = q_values.shape[0], q_values.shape[1], 0.0
    for row in range(rows):
        mean, squares = 0.0, 0.0
        for critic in range(critics):
            mean += q_values[critic, row] / critics
        for critic in range(critics):
            deviation = q_values[critic, row] - mean
            squares += deviation * deviation
        total += math.sqrt(squares / critics)
    result[0, 0] = total / rows


@formula(_like_first)
def td_targets(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of rewards (B, 1), dones (B, 1), discounts (B, 1) or (1, 1), next values (critics, B, 1): (B, 1).

    Clipped double Q-learning (Fujimoto et al. 2018, equation 10).
    """
    rewards, dones, discounts = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    q_values, targets = _matrix(arguments, 3, zero), _matrix(arguments, 4, zero)
    for row in range(share, rewards.shape[0], shares):
        following = q_values[_lowest(q_values, row), row]
        discount = discounts[min(row, discounts.shape[0] - 1), 0]
        targets[row, 0] = rewards[row, 0] + (type(zero)(1) - dones[row, 0]) * discount * following


@compiled()
def _best(values: Any, sample: int, choices: int) -> int:
    """The choice of the highest value, the first of several; one that is not a number, if there is one, as in torch.

    Values are (1, B, choices) as a matrix, (1, B * choices).
    """
    best = 0
    for other in range(1, choices):
        value, highest = values[0, sample * choices + other], values[0, sample * choices + best]
        if value > highest or (np.isnan(value) and not np.isnan(highest)):
            best = other
    return best


@formula(_like_first)
def best_td_targets(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of rewards (B, 1), dones (B, 1), discounts (B, 1) or (1, 1), next values and those that choose (1, B, n): (B, 1).

    The same values twice for Q-learning (Mnih et al. 2015, algorithm 1); those of the online network to choose, for
    double Q-learning (van Hasselt et al. 2016, equation 4).
    """
    rewards, dones, discounts = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    values, choosing, targets = _matrix(arguments, 3, zero), _matrix(arguments, 4, zero), _matrix(arguments, 5, zero)
    choices = values.shape[1] // rewards.shape[0]
    for row in range(share, rewards.shape[0], shares):
        following = values[0, row * choices + _best(choosing, row, choices)]
        discount = discounts[min(row, discounts.shape[0] - 1), 0]
        targets[row, 0] = rewards[row, 0] + (type(zero)(1) - dones[row, 0]) * discount * following


@formula(lambda values, chosen: [(1, *chosen)])
def values_of(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of values (1, B, n) and what was chosen (B, 1), whole numbers below n: (1, B, 1)."""
    values, chosen, result = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    choices = values.shape[1] // chosen.shape[0]
    for row in range(share, chosen.shape[0], shares):
        result[0, row] = values[0, row * choices + int(chosen[row, 0])]


@formula(lambda by_chosen, chosen, values: [values])
def through_values_of(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of the derivative (1, B, 1) by the results of `values_of`, then what was chosen and the values: that by these."""
    by_chosen, chosen, by_values = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 3, zero)
    choices = by_values.shape[1] // chosen.shape[0]
    for row in range(share, chosen.shape[0], shares):
        for choice in range(choices):
            taken = choice == int(chosen[row, 0])
            by_values[0, row * choices + choice] = by_chosen[0, row] if taken else type(zero)(0)


@formula(_like_first)
def soft_td_targets(share: int, shares: int, arguments: int, zero: Any) -> None:
    """As `td_targets`, with log-probabilities (B, 1) after the next values, then the temperature (1,).

    With an entropy bonus (Haarnoja et al. 2018b, equation 3).
    """
    rewards, dones, discounts = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    q_values, log_prob, targets = _matrix(arguments, 3, zero), _matrix(arguments, 4, zero), _matrix(arguments, 6, zero)
    temperature = _matrix(arguments, 5, zero)[0, 0]
    for row in range(share, rewards.shape[0], shares):
        following = q_values[_lowest(q_values, row), row] - temperature * log_prob[row, 0]
        discount = discounts[min(row, discounts.shape[0] - 1), 0]
        targets[row, 0] = rewards[row, 0] + (type(zero)(1) - dones[row, 0]) * discount * following


@formula(lambda q_values, targets: [(1,), q_values])
def squared_errors(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of values (critics, B, 1) and targets (B, 1): loss (1,), derivative by the values; the number is a scale.

    Mean squared error of each critic times the scale, summed over critics.
    """
    q_values, targets = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero)
    loss, by_q_values = _matrix(arguments, 2, zero), _matrix(arguments, 3, zero)
    if share > 0:
        return
    scale, total = _number(arguments), 0.0
    factor = type(zero)(2 * scale / q_values.shape[1])
    for critic in range(q_values.shape[0]):
        for row in range(q_values.shape[1]):
            error = q_values[critic, row] - targets[row, 0]
            total += error * error
            by_q_values[critic, row] = error * factor
    loss[0, 0] = scale * total / q_values.shape[1]


@formula(lambda q_values, targets: [(1,), q_values])
def smooth_l1_errors(share: int, shares: int, arguments: int, zero: Any) -> None:
    """As `squared_errors`, of the error that is a square up to 1 and grows along a line beyond it.

    Source:
        Girshick 2015 (Fast R-CNN), equation 3: Huber's loss with a bend at 1.
    """
    q_values, targets = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero)
    loss, by_q_values = _matrix(arguments, 2, zero), _matrix(arguments, 3, zero)
    if share > 0:
        return
    scale, total = _number(arguments), 0.0
    factor = type(zero)(scale / q_values.shape[1])
    for critic in range(q_values.shape[0]):
        for row in range(q_values.shape[1]):
            error = q_values[critic, row] - targets[row, 0]
            size = abs(error)
            total += 0.5 * error * error if size < 1 else size - 0.5
            by_q_values[critic, row] = factor * type(zero)(_clip(error, -1.0, 1.0))
    loss[0, 0] = scale * total / q_values.shape[1]


@formula(lambda q_values: [(1,), q_values])
def policy_loss(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of values (critics, B, 1): loss (1,), derivative by the values.

    The number is 0 for the lowest of the critics' values, 1 for their mean.

    Source:
        Silver et al. 2014, deterministic policy gradient.
    """
    q_values, loss, by_q_values = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    if share > 0:
        return
    total, of_mean = 0.0, _number(arguments) > 0
    part = type(zero)(1) / type(zero)(q_values.shape[1])
    for row in range(q_values.shape[1]):
        total += _raised(q_values, row, of_mean, part, by_q_values)
    loss[0, 0] = -total / q_values.shape[1]


@formula(lambda parameters, noise: [noise, (noise[0], 1)])
def squashed_gaussian(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of parameters (B, 2 A), means and log standard deviations, and noise (B, A): actions (B, A), log-probability.

    Independent Gaussians behind a tanh (Haarnoja et al. 2018a, appendix C).
    """
    parameters, noise = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero)
    actions, log_prob = _matrix(arguments, 2, zero), _matrix(arguments, 3, zero)
    width, real = noise.shape[1], type(zero)
    for row in range(share, noise.shape[0], shares):
        density = 0.0
        for column in range(width):
            log_std = real(_clip(parameters[row, width + column], LOG_STD_MIN, LOG_STD_MAX))
            drawn = noise[row, column]
            action = real(_tanh(parameters[row, column] + real(math.exp(log_std)) * drawn))
            actions[row, column] = action
            slope = real(1) - action * action
            density += -0.5 * drawn * drawn - log_std - _LOG_SQRT_2PI - math.log(slope + real(EPSILON))
        log_prob[row, 0] = density


@formula(_like_first)
def through_squashed_gaussian(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Derivative (B, 2 A) by the parameters of `squashed_gaussian`, the noise held fixed.

    Of the parameters, the noise, the actions, the derivatives by actions (B, A) and by log-probability (B, 1).
    """
    parameters, noise, actions = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero), _matrix(arguments, 2, zero)
    by_actions, by_log_prob = _matrix(arguments, 3, zero), _matrix(arguments, 4, zero)
    by_parameters = _matrix(arguments, 5, zero)
    width, real = noise.shape[1], type(zero)
    for row in range(share, noise.shape[0], shares):
        weight = by_log_prob[row, 0]
        for column in range(width):
            action, raw = actions[row, column], parameters[row, width + column]
            log_std = real(_clip(raw, LOG_STD_MIN, LOG_STD_MAX))
            slope = real(1) - action * action
            # d log_prob / d action = 2 action / (1 - action^2 + epsilon), from the squashing alone: the Gaussian's own
            # density is that of the fixed noise, and depends on the standard deviation only.
            toward_action = by_actions[row, column] + weight * (real(2) * action / (slope + real(EPSILON)))
            toward_mean = toward_action * slope
            by_parameters[row, column] = toward_mean
            clipped = log_std != raw
            spread = real(math.exp(log_std)) * noise[row, column]
            by_parameters[row, width + column] = 0 if clipped else toward_mean * spread - weight


@formula(lambda q_values, log_prob, temperature: [(1,), q_values, log_prob])
def soft_policy_loss(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Of values (critics, B, 1), log-probabilities (B, 1), temperature (1,): loss (1,), derivatives by the first two.

    The number is as in `policy_loss`.

    Source:
        Haarnoja et al. 2018b, equation 7; with the mean Chen et al. 2021 (REDQ), algorithm 1.
    """
    q_values, log_prob = _matrix(arguments, 0, zero), _matrix(arguments, 1, zero)
    loss, by_q_values, by_log_prob = (
        _matrix(arguments, 3, zero),
        _matrix(arguments, 4, zero),
        _matrix(arguments, 5, zero),
    )
    if share > 0:
        return
    count, temperature, total = log_prob.shape[0], _matrix(arguments, 2, zero)[0, 0], 0.0
    part, of_mean = type(zero)(1) / type(zero)(count), _number(arguments) > 0
    for row in range(count):
        by_log_prob[row, 0] = part * temperature
        total += temperature * log_prob[row, 0] - _raised(q_values, row, of_mean, part, by_q_values)
    loss[0, 0] = total / count
