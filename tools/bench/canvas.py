"""A picture to draw on, and the file that it becomes. Knows nothing of what is drawn. The only module that needs matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2a6fbb", "#e08a2e", "#4f9d5d", "#a3559e", "#8a7a5c")
GREY = "#555555"


class PictureFailed(Exception):
    """matplotlib is missing, or cannot write this file."""


@contextmanager
def canvas(path: Path, date: str, inches: tuple[float, float], title: str) -> Iterator["Figure"]:
    """Written at the end; the file's ending says how (.svg, .png, .pdf). Raises PictureFailed."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PictureFailed("--picture needs matplotlib. Install it with: pip install -r requirements-dev.txt") from error
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "path", "svg.hashsalt": date}
    with rc_context(style):
        picture = Figure(figsize=inches, layout="constrained")
        picture.suptitle(title, fontsize=10, x=0.01, ha="left")
        yield picture
        try:
            picture.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        except (OSError, ValueError) as error:
            raise PictureFailed(f"{path} cannot be written: {error}. Name a file that ends in .svg or .png.") from error
