"""How the next token is chosen, shared by the socket and the engines. Knows nothing of text: stops here are token ids."""

import msgspec

# Fields of SamplingParams that a request and a model's table in models.toml both may set.
SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sampling of one job. The defaults are OpenAI's; api/schema checks the ranges.

    The seed is always set: a job without one in its request gets a random one at the gateway, so that any job can
    be replayed. Token number p of a sequence (prompt included) is drawn with a generator made from (seed, p) alone.
    """

    seed: int  # any signed 64-bit integer
    temperature: float = 1.0  # 0 takes the likeliest token
    top_p: float = 1.0
    top_k: int = 0  # 0 keeps all
    min_p: float = 0.0
    presence_penalty: float = 0.0  # on completion tokens, as OpenAI has it
    frequency_penalty: float = 0.0  # on completion tokens
    repetition_penalty: float = 1.0  # on prompt and completion tokens; 1 is off
    ignore_eos: bool = False
    logit_bias: dict[int, float] = {}  # token: what is added to its logit
    stop_tokens: list[int] = []  # any of them ends the completion, as the model's own end tokens do
    min_tokens: int = 0  # completion tokens before which it cannot end
    logprobs: int | None = None  # tell the drawn token's logprob, and those of so many of the likeliest; None: tell none

    @property
    def greedy(self) -> bool:
        """Only the likeliest token can be drawn."""
        return self.temperature == 0 or self.top_k == 1 or self.top_p == 0 or self.min_p >= 1


def nth_seed(seed: int, index: int) -> int:
    """The seed of a request's choice number `index`: a signed 64-bit integer again."""
    return (seed + index + 2**63) % 2**64 - 2**63


def mix_seed(seed: int, position: int) -> int:
    """A 32-bit seed for one draw, from the request's seed and the token's position in its sequence.

    SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), folded
    to 32 bits: neighbouring positions must not give neighbouring generator states.
    """
    mask = 0xFFFFFFFFFFFFFFFF
    z = (seed + (position + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    return (z ^ (z >> 32)) & 0xFFFFFFFF
