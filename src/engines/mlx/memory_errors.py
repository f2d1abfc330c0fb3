"""Which of MLX's errors mean that memory ran out."""

# What MLX's allocators say, and Metal of a command buffer: "Insufficient Memory (…:kIOGPUCommandBufferCallbackErrorOutOfMemory)".
_SIGNS = ("alloc", "Insufficient Memory", "OutOfMemory")


def is_memory(error: Exception) -> bool:
    return any(sign in str(error) for sign in _SIGNS)
