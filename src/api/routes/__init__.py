"""One module per resource, each with its blueprint. Only src/api/app.py imports them, and they do not import each other."""
