"""The folders in which other programs keep their models, each with a small model: LM Studio's, huggingface-hub's cache, Ollama's."""

import hashlib
import json
import os
from pathlib import Path

from tests.support.model_files import gguf_bytes, put

KIND = "application/vnd.ollama.image."


def lm_studio(root: Path, name: str = "lmstudio-community/Tiny-1B-GGUF/Tiny-1B-Q4_K_M.gguf", content: bytes | None = None) -> Path:
    """A model, and the part of it that sees, which is none by itself. Returns the folder."""
    put(root, name, content=content)
    put(root, f"{os.path.dirname(name)}/mmproj-F16.gguf", content=gguf_bytes({"general.architecture": "clip"}))
    return root


def hub_cache(root: Path, repository: str = "org/Tiny-2B-GGUF", name: str = "Tiny-2B.gguf", content: bytes | None = None) -> Path:
    """Two revisions, of which main is the older one; the files are links into blobs that are called after their SHA-256."""
    place = root / f"models--{repository.replace('/', '--')}"
    whole = gguf_bytes() if content is None else content
    digest = hashlib.sha256(whole).hexdigest()
    put(place, f"blobs/{digest}", content=whole)
    for revision in ("a" * 40, "b" * 40):
        (place / "snapshots" / revision).mkdir(parents=True)
        (place / "snapshots" / revision / (name if revision[0] == "a" else f"not-{name}")).symlink_to(f"../../blobs/{digest}")
    os.utime(place / "snapshots" / ("a" * 40), (1, 1))
    put(place, "refs/main", content=b"a" * 40)
    return root


class OllamaStore:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)
        (root / "manifests").mkdir()

    def blob(self, content: bytes) -> str:
        """Its digest, as manifests have it."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if not self.path(digest).exists():
            self.path(digest).write_bytes(content)
        return digest

    def path(self, digest: str) -> Path:
        return self.root / "blobs" / digest.replace(":", "-")

    def layer(self, kind: str, content: bytes) -> dict[str, object]:
        return {"mediaType": KIND + kind, "digest": self.blob(content), "size": len(content)}

    def manifest(self, name: str, content: bytes) -> Path:
        """`name`: HOST/NAMESPACE/MODEL/TAG."""
        put(self.root / "manifests", name, content=content)
        return self.root / "manifests" / name

    def model(self, name: str, weights: bytes, parameters: object = None, **more: bytes) -> str:
        """As `ollama pull` leaves it. Returns the digest of its GGUF."""
        layers = [self.layer("model", weights), self.layer("template", b"{{ .Prompt }}"), self.layer("license", b"free")]
        if parameters is not None:
            layers.append(self.layer("params", json.dumps(parameters).encode()))
        layers += [self.layer(kind, content) for kind, content in more.items()]
        config = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": self.blob(b"{}"), "size": 2}
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        self.manifest(name, json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).encode())
        return str(layers[0]["digest"])
