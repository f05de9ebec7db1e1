"""Named random streams: equal names give equal numbers, other names other numbers."""

from __future__ import annotations

import itertools

import numpy as np

from sparserl.seeding import stream


def numbers(generator: np.random.Generator) -> list[int]:
    return [int(number) for number in generator.integers(2**62, size=4)]


def test_a_stream_is_a_pcg64_seeded_by_the_crc32_of_each_name() -> None:
    # crc32(b"123456789") is CRC-32's published check value, crc32(b"a") = e8b7be43: the same in every process.
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([7, 0xCBF43926, 0xE8B7BE43])))
    assert numbers(stream(7, "123456789", "a")) == numbers(expected)


def test_every_part_of_the_path_matters() -> None:
    streams = [
        stream(0),
        stream(0, "a"),
        stream(1, "a"),
        stream(0, "b"),
        stream(0, "a", "b"),
        stream(0, "b", "a"),
        stream(0, "ab"),
        stream(0, "rewire", "actor.0"),
        stream(0, "rewire", "actor.1"),
        stream(0, "initial_topology", "actor.0"),
    ]
    drawn = [numbers(generator) for generator in streams]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))


def test_streams_do_not_share_state() -> None:
    first = stream(3, "x")
    before = numbers(first)
    numbers(stream(3, "y"))
    np.random.default_rng(3).random()
    assert numbers(stream(3, "x")) == before
    assert numbers(first) != before


def test_streams_of_different_names_are_uncorrelated() -> None:
    draws = np.stack([stream(0, "rewire", f"layer.{i}").standard_normal(4000) for i in range(8)])
    correlation = np.corrcoef(draws) - np.eye(8)
    assert np.abs(correlation).max() < 0.08  # 5 standard deviations
