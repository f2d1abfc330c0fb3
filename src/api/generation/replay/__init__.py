"""Answers that outlive their client's connection: kept event by event, followed live, resumed, and sent again.

A request with an Idempotency-Key has a log in RUN_DIR. One greenlet of some worker writes it as the answer comes; whoever
asks with the same key, or by the answer's id, follows it, in any worker. If the writer's worker dies, a follower's takes over.
"""

from src.api.generation.replay.answer import Answer, Recipe
from src.api.generation.replay.log import LogHeader, LogRequest, canonical, digest
from src.api.generation.replay.store import Store, store

__all__ = ["Answer", "LogHeader", "LogRequest", "Recipe", "Store", "canonical", "digest", "store"]
