"""Formulas against torch: values, derivatives by autograd, and what is not a number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparserl.kernels import formulas

F32 = np.float32


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(F32)


def test_tanh_and_its_derivative_to_the_last_bits() -> None:
    x = np.concatenate([np.linspace(-25, 25, 4001), np.logspace(-12, -2, 200)]).astype(F32)[:, None]
    y = formulas.tanh(x)
    np.testing.assert_allclose(y, np.tanh(x.astype(np.float64)), rtol=1.2e-7)
    leaf = torch.from_numpy(x).requires_grad_()
    torch.tanh(leaf).backward(torch.ones_like(leaf))
    np.testing.assert_allclose(formulas.through_tanh(np.ones_like(x), y), leaf.grad, rtol=1e-5, atol=1e-6)


def test_targets_by_hand() -> None:
    rewards, dones = F32([[1], [2], [3]]), F32([[0], [1], [0]])
    q_values = F32([[[10], [20], [30]], [[5], [25], [40]]])
    assert formulas.td_targets(rewards, dones, F32([[0.5]]), q_values).tolist() == [[3.5], [2], [18]]
    discounts = F32([[0.5], [1], [0.1]])
    np.testing.assert_allclose(formulas.td_targets(rewards, dones, discounts, q_values), [[3.5], [2], [6]])
    log_prob = F32([[1], [9], [-10]])
    soft = formulas.soft_td_targets(rewards, dones, F32([[0.5]]), q_values, log_prob, F32([0.5]))
    assert soft.tolist() == [[3.25], [2], [20.5]]


def test_targets_by_the_best_of_several_actions_by_hand() -> None:
    rewards, dones = F32([[1], [2], [3]]), F32([[0], [1], [0]])
    values = F32([[[10, 20], [30, 40], [60, 50]]])
    choosing = F32([[[1, 0], [0, 1], [2, 2]]])  # the first of two that are alike
    half = F32([[0.5]])
    assert formulas.best_td_targets(rewards, dones, half, values, values).tolist() == [[11], [2], [33]]
    assert formulas.best_td_targets(rewards, dones, half, values, choosing).tolist() == [[6], [2], [33]]
    discounts = F32([[0.5], [1], [0.1]])
    assert formulas.best_td_targets(rewards, dones, discounts, values, values).tolist() == [[11], [2], [9]]


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_value_that_is_no_number_is_the_best_of_several(column: int) -> None:
    values = F32([[[1, 2, 3]]])
    values[0, 0, column] = np.nan
    one, none = F32([[1]]), F32([[0]])
    assert np.isnan(formulas.best_td_targets(one, none, one, values, values)).all()


def test_values_of_what_was_chosen_and_their_derivative() -> None:
    values, chosen = drawn(1, 6, 4), F32([[0], [3], [2], [2], [1], [0]])
    picked = formulas.values_of(values, chosen)
    leaf = torch.from_numpy(values).requires_grad_()
    expected = leaf[0].gather(1, torch.from_numpy(chosen).long())
    np.testing.assert_array_equal(picked[0], expected.detach())
    slopes = drawn(1, 6, 1, seed=1)
    expected.backward(torch.from_numpy(slopes[0]))
    np.testing.assert_array_equal(formulas.through_values_of(slopes, chosen, values), leaf.grad)


def test_smoothing_keeps_to_the_bounds() -> None:
    found = formulas.smoothed(F32([[0.5, -0.9, np.nan]]), F32([[0.2, -0.3, 0]]))
    np.testing.assert_array_equal(found, F32([[0.7, -1, np.nan]]))


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_squared_errors_as_in_torch(scale: float) -> None:
    q_values, targets = drawn(2, 9, 1), drawn(9, 1, seed=1)
    loss, gradient = formulas.squared_errors(q_values, targets, number=scale)
    leaf = torch.from_numpy(q_values).requires_grad_()
    expected = scale * sum(torch.nn.functional.mse_loss(q, torch.from_numpy(targets)) for q in leaf)
    expected.backward()
    assert float(loss[0]) == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, leaf.grad, rtol=1e-6)


def test_smooth_l1_errors_to_the_bit_of_torch() -> None:
    q_values, targets = 2 * drawn(2, 40, 1), drawn(40, 1, seed=1)
    q_values[0, :3] = targets[:3] + F32([[1], [-1], [0]])
    loss, gradient = formulas.smooth_l1_errors(q_values, targets, number=1.0)
    leaf = torch.from_numpy(q_values).requires_grad_()
    expected = sum(torch.nn.functional.smooth_l1_loss(q, torch.from_numpy(targets)) for q in leaf)
    expected.backward()
    assert float(loss[0]) == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_array_equal(gradient, leaf.grad)
    assert len(np.unique(gradient)) > 20  # on both sides of the bends
    assert np.isnan(formulas.smooth_l1_errors(F32([[[np.nan]]]), F32([[1]]), number=1.0)[1]).all()


def test_the_deterministic_policy_loss_as_in_torch() -> None:
    q_values = drawn(1, 9, 1)
    loss, gradient = formulas.policy_loss(q_values)
    assert float(loss[0]) == pytest.approx(-q_values.mean(), rel=1e-6)
    assert (gradient == F32(-1) / F32(9)).all()


def test_the_soft_policy_loss_as_in_torch() -> None:
    q_values, log_prob = drawn(3, 9, 1), drawn(9, 1, seed=1)
    loss, by_q_values, by_log_prob = formulas.soft_policy_loss(q_values, log_prob, F32([0.3]))
    q, log = (torch.from_numpy(array).requires_grad_() for array in (q_values, log_prob))
    expected = (0.3 * log - q.min(dim=0).values).mean()
    expected.backward()
    assert float(loss[0]) == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(by_q_values, q.grad, rtol=1e-6)
    np.testing.assert_allclose(by_log_prob, log.grad, rtol=1e-6)


def test_losses_of_the_mean_of_critics_as_in_torch() -> None:
    q_values, log_prob = drawn(3, 9, 1), drawn(9, 1, seed=1)
    q = torch.from_numpy(q_values).requires_grad_()
    expected = (0.3 * torch.from_numpy(log_prob) - q.mean(dim=0)).mean()
    expected.backward()
    soft, by_soft, _ = formulas.soft_policy_loss(q_values, log_prob, F32([0.3]), number=1)
    plain, by_plain = formulas.policy_loss(q_values, number=1)
    assert float(soft[0]) == pytest.approx(expected.item(), rel=1e-6)
    assert float(plain[0]) == pytest.approx(-q_values.mean(), rel=1e-5)
    for found in (by_soft, by_plain):
        np.testing.assert_allclose(found, q.grad, rtol=1e-6)


def test_the_lowest_value_without_entropy_as_in_torch() -> None:
    q = torch.from_numpy(drawn(3, 9, 1)).requires_grad_()
    expected = -q.min(dim=0).values.mean()
    expected.backward()
    loss, gradient = formulas.policy_loss(q.detach().numpy())
    assert float(loss[0]) == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, q.grad, rtol=1e-6)


def test_a_subset_and_the_disagreement_by_hand() -> None:
    q_values = F32([[[1], [5]], [[3], [5]], [[8], [5]]])
    assert formulas.selected(F32([2, 0]), q_values).tolist() == [[[8], [5]], [[1], [5]]]
    # Mean 4, squared deviations 9, 1, 16; the second transition has none.
    assert float(formulas.disagreement(q_values)[0]) == pytest.approx((26 / 3) ** 0.5 / 2, rel=1e-6)


@pytest.mark.parametrize("critic", [0, 1])
def test_a_value_that_is_no_number_is_the_lowest(critic: int) -> None:
    q_values = F32([[[1]], [[2]]])
    q_values[critic] = np.nan
    one, none = F32([[1]]), F32([[0]])
    assert np.isnan(formulas.td_targets(one, none, one, q_values)).all()
    assert np.isnan(formulas.soft_policy_loss(q_values, one, F32([1.0]))[0]).all()


def test_a_log_standard_deviation_beyond_its_bounds_has_no_derivative() -> None:
    parameters, noise = F32([[0.1, 0.2, 0.3, 5.0, -30.0, 1.0]]), F32([[0.1, 0.2, 0.3]])
    actions, _ = formulas.squashed_gaussian(parameters, noise)
    ones = np.ones((1, 3), F32)
    found = formulas.through_squashed_gaussian(parameters, noise, actions, ones, np.ones((1, 1), F32))
    assert (found[0, 3:] == 0).tolist() == [True, True, False]
