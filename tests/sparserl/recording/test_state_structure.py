"""What is expected of a loaded state: worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sparserl.errors import CheckpointError
from sparserl.recording.state_structure import ANYTHING, Each, Named, check_structure

MATRIX, LIST = torch.zeros(2, 3), torch.zeros(4)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"a": 1, "b": [2.0, 3]}, {"b": (0.0, 1.0), "a": 7}),
        ({"a": MATRIX, "b": torch.zeros(9)}, {"a": MATRIX + 1, "b": np.zeros(4, np.float32)}),  # other connections
        ({"x": [1, 2], "y": {"k": 1}}, {"x": [], "y": {}}),
        ([{"r": 1.0, "l": 2}, {"r": 1, "l": 3}], Each({"r": 0.0, "l": 0})),
        ([], Each(0)),
        ({"p": [1], "q": []}, Named(Each(0))),
        ({"a": "text"}, {"a": ANYTHING}),
        (True, False),
        ({"due": None, "cached": None}, {"due": 3, "cached": 0.5}),  # an end that has passed, a draw that is used up
        (3, np.int64(4)),
    ],
)
def test_what_fits(found: Any, expected: Any) -> None:
    check_structure(found, expected)


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, "the checkpoint/a lacks 'c'"),
        ({"a": {"b": 1, "d": 1}}, {"a": {"b": 1}}, "the checkpoint/a has an unknown 'd'"),
        ({"a": 1.0}, {"a": 1}, "the checkpoint/a is a float, not int"),
        ({"a": True}, {"a": 1}, "the checkpoint/a is a bool, not int"),
        ({"a": 1}, {"a": True}, "the checkpoint/a is a int, not bool"),
        ({"a": None}, {"a": ""}, "the checkpoint/a is nothing, not str"),
        ({"a": []}, {"a": {}}, "the checkpoint/a is a list, not a dict"),
        ([1, 2, 3], [1, 2], "the checkpoint holds 3 items, not 2"),
        ([1, "x"], Each(0), "the checkpoint/1 is a str, not int"),
        ({"k": [1]}, Named(0), "the checkpoint/k is a list, not int"),
        ({"a": [0.0]}, {"a": LIST}, "the checkpoint/a is a list, not an array"),
        ({"a": LIST.double()}, {"a": LIST}, r"the checkpoint/a is an array of torch\.float64"),
        ({"a": MATRIX.T}, {"a": MATRIX}, r"of torch\.float32 and shape \(3, 2\), not of torch\.float32 and \(2, 3\)"),
        ({"a": LIST[None]}, {"a": LIST}, r"shape \(1, 4\)"),
    ],
)
def test_what_does_not(found: Any, expected: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_structure(found, expected)
