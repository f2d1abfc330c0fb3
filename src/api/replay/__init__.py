"""Answers that outlive their client's connection: kept event by event, to be joined, gone on with, and told again.

A request with an Idempotency-Key has a log in RUN_DIR. One greenlet of some worker writes it as the answer comes; whoever
asks with the same key, or by the answer's id, follows it, in any worker. If the writer's worker dies, a follower's goes on.
"""

from src.api.replay.answer import Answer
from src.api.replay.log import Asked, Opened, digest
from src.api.replay.store import Store

__all__ = ["Answer", "Asked", "Opened", "Store", "digest"]
