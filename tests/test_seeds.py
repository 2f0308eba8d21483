"""Random streams: independent, named, reproducible, and nobody else's."""

import hashlib
import random

import numpy as np
import pytest
import torch

from zo_runner.methods.random import generator, normal, signs
from zo_runner.seeds import fold_in


@pytest.mark.parametrize(
    ("seed", "path", "expected"),
    [
        (0, (), 2320352090),
        (0, ("direction", 3, "layer0", "A"), 2569177324),
        (7, ("order", 0), 1723971028),
    ],
)
def test_known_seeds_stay_what_they_are(seed, path, expected):
    assert fold_in(seed, *path) == expected


def test_a_seed_is_the_first_four_bytes_of_the_blake2b_of_a_json_list():
    digest = hashlib.blake2b(b'[0, "direction", 3, "layer0", "A"]', digest_size=4).digest()
    assert fold_in(0, "direction", 3, "layer0", "A") == int.from_bytes(digest, "big")


def test_known_draws_stay_what_they_are():
    assert normal((3,), 0, "z").tolist() == pytest.approx([0.3834013, -0.0677957, -0.4399359], abs=1e-6)
    assert torch.randperm(8, generator=generator(0, "order", 0)).tolist() == [1, 2, 4, 5, 3, 0, 6, 7]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b"), ("ab",)),
        (("a", "b"), ("b", "a")),
        (("a",), ("a", "")),
        (("a", 1), ("a", "1")),
        (("a", 1), ("a1",)),
        (('a", "b',), ("a", "b")),
        (("a", 1, 23), ("a", 12, 3)),
        ((), ("",)),
    ],
)
def test_different_paths_are_different_streams(one, other):
    assert fold_in(0, *one) != fold_in(0, *other)
    assert not torch.equal(normal((4,), 0, *one), normal((4,), 0, *other))


def test_seeds_differ_from_steps_and_from_each_other():
    seeds = {fold_in(seed, "direction", step) for seed in range(100) for step in range(100)}
    assert len(seeds) == 10_000
    assert fold_in(1, 2) != fold_in(2, 1)
    assert fold_in(-1, "a") != fold_in(1, "a")


def test_a_seed_fits_the_generator_that_reads_only_32_bits():
    assert all(0 <= fold_in(2**70 + i, "a") < 2**32 for i in range(200))
    assert max(fold_in(i) for i in range(200)) > 2**31


def test_streams_are_uncorrelated():
    """256 neighbouring streams of 256 numbers: no pair is more correlated than chance allows."""
    draws = torch.stack([normal((256,), 0, "direction", step, "layer0", "A") for step in range(256)]).double()
    correlation = (draws @ draws.T / 256).fill_diagonal_(0)
    assert correlation.abs().max() < 6 / 256**0.5
    assert correlation.square().mean().item() == pytest.approx(1 / 256, rel=0.05)


def test_draws_are_standard_normal_float32():
    z = normal((100_000,), 0, "z")
    assert z.dtype == torch.float32
    moments = [z.double().pow(k).mean().item() for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.06)


def test_signs_are_the_bits_of_bytes_so_that_no_row_of_eight_is_likelier_than_another():
    drawn = torch.randint(256, (10,), generator=generator(3, "z"), dtype=torch.int32).tolist()
    expected = [1.0 if byte >> bit & 1 else -1.0 for byte in drawn for bit in range(8)]
    assert signs((80,), 3, "z").tolist() == expected
    for shape in ((0,), (1,), (), (7, 11), (2, 3, 13)):
        z = signs(shape, 3, "z")
        assert z.shape == shape
        assert z.is_contiguous()
        assert z.flatten().tolist() == expected[: z.numel()]


def test_signs_are_fair_and_independent():
    """Every bit of a byte on its own, neighbours, and neighbouring streams: means of n signs are within 5/sqrt(n)."""
    z, other = signs((80_000,), 0, "z"), signs((80_000,), 0, "y")
    assert set(z.tolist()) == {-1.0, 1.0}
    assert (z.reshape(-1, 8).mean(dim=0).abs() < 5 / 10_000**0.5).all()
    for lag in (1, 2, 7, 8, 9):
        assert (z[lag:] * z[:-lag]).mean().abs() < 5 / 80_000**0.5
    assert (z * other).mean().abs() < 5 / 80_000**0.5


def test_draws_come_from_the_start_of_the_stream_every_time():
    assert torch.equal(normal((5, 7), 3, "z"), normal((5, 7), 3, "z"))
    first, second = generator(3, "z"), generator(3, "z")
    torch.randn(5, generator=first)
    assert torch.equal(torch.randn(4, generator=second), normal((4,), 3, "z"))


def test_a_tensor_is_drawn_whole_whatever_its_shape():
    flat = normal((60,), 0, "z")
    for shape in ((60,), (4, 15), (15, 4), (3, 4, 5), torch.Size((20, 3))):
        z = normal(shape, 0, "z")
        assert z.is_contiguous()
        assert torch.equal(z.flatten(), flat)


def test_the_global_generators_are_neither_read_nor_moved():
    draws = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        draws.append(normal((20,), 0, "z"))
        generator(0, "other")
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
        assert random.getstate() == before[2]
    assert torch.equal(*draws)
