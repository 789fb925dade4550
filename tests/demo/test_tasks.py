"""What the demo's tasks compute."""

from __future__ import annotations

import math
from itertools import chain, islice

import pytest

from oncue.demo.batches import Batch
from oncue.demo.tasks import digits_of_pi, prime_factors, product


def test_the_digits_of_pi_are_right() -> None:
    digits = "".join(str(digit) for digit in islice(digits_of_pi(), 1000))
    assert digits.startswith("14159265358979323846264338327950288419716939937510")
    assert digits.endswith("2164201989")  # the thousandth is the last of these


@pytest.mark.parametrize(
    ("number", "factors"),
    [
        (2, [2]),
        (97, [97]),
        (2**20, [2] * 20),
        (600_851_475_143, [71, 839, 1471, 6857]),
        (999_999_000_001, [999_999_000_001]),
        (999_983**2, [999_983, 999_983]),
    ],
)
def test_numbers_come_apart_into_their_primes(number: int, factors: list[int]) -> None:
    assert list(chain(*prime_factors(number))) == factors
    assert math.prod(factors) == number


def test_factors_are_written_as_people_do() -> None:
    assert product([2, 2, 2, 5, 1471]) == "2³ × 5 × 1,471"
    assert product([3] * 12) == "3¹²"


def test_a_long_division_gives_others_their_turn() -> None:
    assert 100 <= len(list(prime_factors(999_999_000_001))) <= 101  # half a million divisions


def test_the_id_of_a_batch_says_which_jobs_it_has() -> None:
    batch = Batch.new(100)
    ids = batch.job_ids()
    assert len(set(ids)) == 100
    assert Batch.parse(batch.id) == batch
    assert Batch.parse(batch.id).job_ids() == ids
    assert not set(ids) & set(Batch.new(100).job_ids())


@pytest.mark.parametrize(
    "text", ["", "x", "0" * 26, "0" * 26 + "-0", "0" * 26 + "-101", "0" * 26 + "-1\n", "0" * 26 + "-٣"]
)
def test_what_is_no_batch_is_refused(text: str) -> None:
    with pytest.raises(LookupError):
        Batch.parse(text)
