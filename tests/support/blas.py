"""A fast BLAS for MLX on Linux, whose wheel brings the reference one: 3.5 GFLOP/s of float32 where OpenBLAS reaches 200.

`python -m tests.support.blas` prints what to put into LD_PRELOAD; nothing where there is no compiler or no such numpy. Tests are right
without it, but take ten times as long. Knows nothing of MLX but the name of a function.
"""

import hashlib
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

CACHE = Path.home() / ".cache" / "llm-inference-service" / "blas"
SOURCE = Path(__file__).with_name("blas.c")


def preload() -> Path | None:
    """A library with MLX's name for OpenBLAS's function. Made where this machine has none yet."""
    numpy, compiler = find_spec("numpy"), shutil.which("cc") or shutil.which("gcc")
    if numpy is None or numpy.origin is None or compiler is None:
        return None
    libraries = list((Path(numpy.origin).parents[1] / "numpy.libs").glob("libscipy_openblas64*.so"))
    if not libraries:
        return None
    made = CACHE / f"{hashlib.sha256(SOURCE.read_bytes() + bytes(libraries[0])).hexdigest()[:16]}.so"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            library = Path(folder) / "blas.so"
            define = f'-DOPENBLAS="{libraries[0]}"'
            subprocess.run([compiler, "-O2", "-shared", "-fPIC", define, str(SOURCE), "-o", str(library), "-ldl"], check=True)
            library.rename(made)
    return made


if __name__ == "__main__":
    print(preload() or "")
