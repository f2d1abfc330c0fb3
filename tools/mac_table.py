"""Writes the tables of docs/MAC.md that say which models fit which Mac with which context: python -m tools.mac_table [--check].

The planner computes them for Macs that serve and do nothing else, with the working set that Metal recommends by itself.
"""

import functools
import sys
from pathlib import Path
from typing import NamedTuple

from src.catalog import Facts, ModelEntry
from src.catalog.facts import kv_bytes
from src.catalog.options import ModelOptions
from src.errors import ModelDoesNotFit
from src.manager import memory
from src.manager.memory import GIB
from src.manager.planning import Plan, Planner
from src.settings import ROOT, Settings

PAGE = ROOT / "docs" / "MAC.md"
MACS = (16, 32, 64, 96, 128, 192, 512)  # GB, which are GiB
SYSTEM = 4 * GIB  # that macOS and its services hold of an idle machine
ENGINES = {  # engine: format, and its usual quantisations with the bits that a weight takes, scales and all
    "mlx": ("mlx", {"4 bits": 4.5, "8 bits": 8.5}),
    "llama_cpp": ("gguf", {"Q4_K_M": 4.85, "Q8_0": 8.5}),
}


class Known(NamedTuple):
    """A model, by its makers' config.json."""

    name: str
    parameters: float  # thousand millions
    layers: int
    kv_heads: int  # of 128 numbers each
    hidden: int
    feed_forward: int
    vocabulary: int
    trained: int  # tokens

    def entry(self, file_format: str, bits: float, options: ModelOptions) -> ModelEntry:
        size = int(self.parameters * 1e9 * bits / 8)
        facts = Facts(
            context_length=self.trained,
            weight_bytes=size,
            kv_bytes_per_token=kv_bytes(self.layers, self.kv_heads, 128, 128),
            vocabulary=self.vocabulary,
            embedding_length=self.hidden,
            feed_forward_length=self.feed_forward,
        )
        return ModelEntry(name=self.name, path="", format=file_format, size_bytes=size, modified=0, facts=facts, options=options)


MODELS = (
    Known("Qwen3 4B", 4.02, 36, 8, 2560, 9728, 151_936, 40_960),
    Known("Qwen3 8B", 8.19, 36, 8, 4096, 12_288, 151_936, 40_960),
    Known("Qwen3 14B", 14.77, 40, 8, 5120, 17_408, 151_936, 40_960),
    Known("Mistral Small 24B", 23.57, 40, 8, 5120, 32_768, 131_072, 32_768),
    Known("Qwen3 30B, 3B active", 30.53, 48, 4, 2048, 6144, 151_936, 40_960),
    Known("Qwen3 32B", 32.76, 64, 8, 5120, 25_600, 151_936, 40_960),
    Known("Llama 3.3 70B", 70.55, 80, 8, 8192, 28_672, 128_256, 131_072),
    Known("Qwen3 235B, 22B active", 235.09, 94, 4, 4096, 12_288, 151_936, 40_960),
    Known("Qwen3 Coder 480B, 35B active", 480.15, 62, 8, 6144, 8192, 151_936, 262_144),
)


def working_set(gib: int) -> int:
    """Bytes that Metal recommends where nothing was set: two thirds up to 36 GB, three quarters above. Newer macOS may give more."""
    return gib * GIB * 2 // 3 if gib <= 36 else gib * GIB * 3 // 4


class Mac:
    """One Mac, and the settings as they are by themselves."""

    def __init__(self, gib: int, engine: str) -> None:
        settings = Settings.load(env_file=None, environ={})
        self._engine, (self._format, _) = engine, ENGINES[engine]
        self._planner = Planner(settings, Path())
        share = self._planner.working_set_share(engine)
        reserve = settings.memory_reserve * 2**20
        self.memory = memory.unified(gib * GIB, gib * GIB - SYSTEM, working_set(gib), reserve, share=share)

    def cell(self, model: Known, bits: float) -> str:
        """The longest context of one request alone, and the requests of 4,096 tokens together that the planner makes room for."""
        longest = self.longest(model, bits)
        plan = self.plan(model, bits)
        if not longest or not plan:
            return "–"
        return f"{longest // 1024}k · {plan.fit.sequences}" if plan.fit.context_length >= memory.DEFAULT_CONTEXT else f"{longest // 1024}k"

    def longest(self, model: Known, bits: float) -> int:
        """Tokens, in whole thousands (1,024) as far as it has so many; 0 where the model does not fit."""
        least, most = 0, model.trained // 1024
        while least < most:
            middle = (least + most + 1) // 2
            least, most = (middle, most) if self.plan(model, bits, middle * 1024, 1) else (least, middle - 1)
        return least * 1024

    def plan(self, model: Known, bits: float, context_length: int = 0, sequences: int = 0) -> Plan | None:
        """None where it does not fit. 0: open."""
        asked = {"context_length": context_length or None, "max_parallel_sequences": sequences or None}
        entry = model.entry(self._format, bits, ModelOptions.model_validate(asked))
        try:
            return self._planner.plan(entry, self._engine, self.memory)
        except ModelDoesNotFit:
            return None


@functools.cache
def table(engine: str) -> str:
    macs = [Mac(gib, engine) for gib in MACS]
    lines = ["| | weights | " + " | ".join(f"{gib} GB" for gib in MACS) + " |", "|---|---|" + "---|" * len(MACS)]
    room = [f"{mac.memory.free / 1e9:.0f} GB" for mac in macs]
    lines.append("| room for a model | | " + " | ".join(room) + " |")
    for model in MODELS:
        for quantisation, bits in ENGINES[engine][1].items():
            cells = [mac.cell(model, bits) for mac in macs]
            if set(cells) != {"–"}:
                lines.append(f"| {model.name}, {quantisation} | {model.parameters * bits / 8:.0f} GB | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The same page with the tables as they are computed."""
    for engine in ENGINES:
        begin, end = f"<!-- what fits with {engine}: python -m tools.mac_table -->\n", f"<!-- end of what fits with {engine} -->\n"
        above, _, rest = text.partition(begin)
        text = above + begin + table(engine) + end + rest.partition(end)[2]
    return text


def main(argv: list[str]) -> int:
    text = PAGE.read_text()
    if (wanted := page(text)) == text:
        return 0
    if "--check" in argv:
        print("docs/MAC.md is stale: run python -m tools.mac_table")
        return 1
    PAGE.write_text(wanted)
    print("wrote docs/MAC.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
