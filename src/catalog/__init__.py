"""The models folder: what lies in it, what it says of itself, what models.toml adds. Loads no model and knows no engine."""

from src.catalog.facts import BrokenModel, Facts
from src.catalog.library import Library, OneModel
from src.catalog.listing import Listing
from src.catalog.options import ModelOptions, read_options
from src.catalog.scan import Catalog, ModelEntry

__all__ = ["BrokenModel", "Catalog", "Facts", "Library", "Listing", "ModelEntry", "ModelOptions", "OneModel", "read_options"]
