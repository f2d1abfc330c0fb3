"""One small process that owns the runners: starts, watches, restarts and evicts them. Never holds a model."""
