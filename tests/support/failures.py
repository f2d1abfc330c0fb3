"""Every way to be refused that the errors know."""

from src.errors import ServiceError


def failures(base: type[ServiceError] = ServiceError) -> set[type[ServiceError]]:
    """The class and all below it."""
    return {base}.union(*(failures(child) for child in base.__subclasses__()))
