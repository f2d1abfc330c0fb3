"""How far the greedy answers of several servers agree, token by token: the same weights, computed by different engines.

    python tools/agreement.py llama.cpp=http://127.0.0.1:8001 MLX=http://127.0.0.1:8002 [--prompts 50] [--tokens 64] [--json FILE]

Every server is compared with the first. Engines round differently, so that where two tokens are almost equally likely they
may choose differently, and from there on write different texts. `gap` is the median difference of both tokens' logprobs, by the
first server, at the places where they first differed.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import httpx

SUBJECTS = "the sea, a mountain, bread, the moon, a violin, winter, a train, rice, a library, honey".split(", ")
QUESTIONS = (
    "Tell me about {}.",
    "Why do people like {}?",
    "Write a short story about {}.",
    "List three facts about {}.",
    "What would a child ask about {}?",
)
PROMPTS = [question.format(subject) for question in QUESTIONS for subject in SUBJECTS]

Token = dict[str, Any]


def main() -> int:
    arguments = _parser().parse_args()
    servers = dict(pair.split("=", 1) for pair in arguments.servers)
    answers = {name: [_ask(url, prompt, arguments.tokens) for prompt in PROMPTS[: arguments.prompts]] for name, url in servers.items()}
    reference, *others = servers
    rows = {name: compare(answers[reference], answers[name]) for name in others}
    print(f"| against {reference} | prompts | first token the same | all {arguments.tokens} the same | same before they differ | gap |")
    print("|---|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['prompts']} | {row['first']:.0%} | {row['whole']:.0%} | {row['prefix']:.1f} tokens | {row['gap']:.3f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"tokens": arguments.tokens, "against": reference, "rows": rows}, indent=1) + "\n")
    return 0


def compare(reference: list[list[Token]], other: list[list[Token]]) -> dict[str, float]:
    """Shares of the prompts, and means over them."""
    prefixes = [_common(one, two) for one, two in zip(reference, other, strict=True)]
    whole = [prefix == len(one) == len(two) for prefix, one, two in zip(prefixes, reference, other, strict=True)]
    gaps = [
        _gap(one[prefix], two[prefix])
        for prefix, one, two in zip(prefixes, reference, other, strict=True)
        if prefix < min(len(one), len(two))
    ]
    return {
        "prompts": len(prefixes),
        "first": sum(prefix > 0 for prefix in prefixes) / len(prefixes),
        "whole": sum(whole) / len(whole),
        "prefix": statistics.mean(prefixes),
        "gap": statistics.median(gaps) if gaps else 0.0,
    }


def _common(one: list[Token], two: list[Token]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, two, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left["bytes"] != right["bytes"]), min(len(one), len(two)))


def _gap(drawn: Token, other: Token) -> float:
    """By how much the server of `drawn` found the other token less likely; what it did not list is less likely than all it did."""
    known = [top["logprob"] for top in drawn["top_logprobs"] if top["bytes"] == other["bytes"]]
    return float(drawn["logprob"] - (known[0] if known else drawn["top_logprobs"][-1]["logprob"]))


def _ask(url: str, prompt: str, tokens: int) -> list[Token]:
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        "logprobs": True,
        "top_logprobs": 5,
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300)
    answer.raise_for_status()
    entries: list[Token] = answer.json()["choices"][0]["logprobs"]["content"]
    return entries


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("servers", nargs="+", metavar="NAME=URL", help="two or more; the first is what the others are compared with")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--json", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
