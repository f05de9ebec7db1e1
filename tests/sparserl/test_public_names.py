"""The names of `sparserl` itself: all are there, and none is imported before it is used."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import sparserl


def test_every_public_name_is_there() -> None:
    assert set(sparserl.__all__) <= set(dir(sparserl))
    for name in sparserl.__all__:
        assert getattr(sparserl, name) is not None
    model = sparserl.SparseLinear.__module__
    assert model == "sparserl.layers.sparse_linear"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sparserl' has no attribute 'sparsfy'"):
        sparserl.sparsfy  # noqa: B018


def test_no_module_takes_the_place_of_a_public_name() -> None:
    for name in sparserl.__all__:
        if not name.startswith("_"):
            assert importlib.util.find_spec(f"sparserl.{name}") is None


def test_the_command_line_answers_without_torch() -> None:
    program = "import sys; from sparserl.cli import main; main(['--version']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [sparserl.__version__, "False"]


def test_no_step_waits_for_what_draws() -> None:
    program = "import sys, sparserl.cli.train; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
