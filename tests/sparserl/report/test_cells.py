"""Numbers as cells of tables."""

from __future__ import annotations

import pytest

from sparserl.report.cells import PREFIX, mean_cell, score_digits, with_prefix


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.1234, "0.123"),
        (999.0, "999"),
        (999.6, "1k"),  # rounds to the next prefix
        (1234.0, "1.23k"),
        (-586_000_000.0, "-586M"),
        (1.21e13, "12.1T"),
        (2e21, "2e+03E"),  # there is none beyond
    ],
)
def test_large_numbers_have_a_prefix(value: float, text: str) -> None:
    assert with_prefix(value) == text


def test_a_mean_is_known_if_that_of_each_seed_is() -> None:
    assert mean_cell([1e9, 3e9], PREFIX) == "2G"
    assert mean_cell([1e9, None], PREFIX) == mean_cell([], PREFIX) == "-"
    assert mean_cell([1_000.0, 1_002.0]) == "1,001"


def test_scores_have_as_many_decimals_as_mean_something() -> None:
    assert [score_digits(largest) for largest in (3_271.1, -100.0, 99.9, -10.0, 1.42, 0.0)] == [0, 0, 1, 1, 2, 2]
