"""Seeds of single draws: 32 bits, made from seed and position alone, and no two neighbours alike."""

import random

from src.sampling import SamplingParams, mix_seed

DRAWS = 100_000
EXPECTED = DRAWS**2 / 2 / 2**32  # collisions of uniform draws from 32 bits: about 1.2


def collisions(values: list[int]) -> int:
    return len(values) - len(set(values))


def test_a_mixed_seed_has_32_bits_whatever_the_seed():
    for seed in (0, 1, -1, 2**63 - 1, -(2**63), 2**32, -(2**32)):
        for position in (0, 1, 2**20):
            assert 0 <= mix_seed(seed, position) < 2**32


def test_the_same_seed_and_position_give_the_same_draw():
    assert mix_seed(7, 3) == mix_seed(7, 3)
    assert mix_seed(-7, 3) == mix_seed(-7, 3)


def test_negative_seeds_are_seeds_of_their_own():
    assert mix_seed(-1, 0) != mix_seed(1, 0)
    assert mix_seed(-(2**63), 0) != mix_seed(2**63 - 1, 0)


def test_neighbouring_positions_collide_no_more_than_chance():
    assert collisions([mix_seed(42, position) for position in range(DRAWS)]) <= EXPECTED + 10


def test_neighbouring_seeds_collide_no_more_than_chance():
    assert collisions([mix_seed(seed, 5) for seed in range(-DRAWS // 2, DRAWS // 2)]) <= EXPECTED + 10


def test_random_seeds_and_positions_collide_no_more_than_chance():
    draw = random.Random(1)
    assert collisions([mix_seed(draw.getrandbits(63), draw.randrange(4096)) for _ in range(DRAWS)]) <= EXPECTED + 10


def test_one_bit_of_seed_or_position_changes_half_the_bits():
    def changed(left: int, right: int) -> int:
        return bin(left ^ right).count("1")

    positions = [changed(mix_seed(9, position), mix_seed(9, position + 1)) for position in range(2000)]
    seeds = [changed(mix_seed(seed, 9), mix_seed(seed + 1, 9)) for seed in range(2000)]
    assert 15.5 < sum(positions) / 2000 < 16.5
    assert 15.5 < sum(seeds) / 2000 < 16.5


def test_mixing_is_splitmix64_folded_to_32_bits():
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # its first outputs from the state 0
    assert [mix_seed(0, position) for position in range(3)] == [value >> 32 ^ value & 0xFFFFFFFF for value in published]


def test_the_defaults_are_openais():
    params = SamplingParams(seed=0)
    assert (params.temperature, params.top_p, params.presence_penalty, params.frequency_penalty) == (1.0, 1.0, 0.0, 0.0)
    assert (params.top_k, params.min_p, params.repetition_penalty, params.ignore_eos) == (0, 0.0, 1.0, False)
