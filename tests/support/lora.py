"""LoRA adapters in PEFT's form for a Hugging Face folder, with seeded random numbers, and the same folder with one merged in.

Needs the package safetensors, which vLLM brings."""

import json
import shutil
from pathlib import Path

import numpy as np

PROJECTION = "self_attn.q_proj"


def write_adapter(folder: Path, base: Path, *, rank: int = 4, strength: float, seed: int = 1) -> Path:
    """`strength`: of the numbers of the second factor; 0 changes nothing."""
    from safetensors.numpy import save_file

    numbers = np.random.default_rng(seed)
    tensors = {}
    for name, weight in _projections(base).items():
        rows, columns = weight.shape
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{prefix}.lora_A.weight"] = numbers.normal(0, 1, (rank, columns)).astype(np.float32)
        tensors[f"{prefix}.lora_B.weight"] = numbers.normal(0, strength, (rows, rank)).astype(np.float32)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merged(folder: Path, base: Path, adapter: Path) -> Path:
    """`folder`, a copy of `base` with the adapter's product added to its weights."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((adapter / "adapter_config.json").read_text())
    factors = load_file(adapter / "adapter_model.safetensors")
    shutil.copytree(base, folder)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name in tensors:
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{prefix}.lora_A.weight" in factors:
                product = factors[f"{prefix}.lora_B.weight"] @ factors[f"{prefix}.lora_A.weight"]
                tensors[name] = tensors[name] + product * (config["lora_alpha"] / config["r"])
        save_file(tensors, file, {"format": "pt"})
    return folder


def _projections(base: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: weight for file in base.glob("*.safetensors") for name, weight in load_file(file).items() if PROJECTION in name}
