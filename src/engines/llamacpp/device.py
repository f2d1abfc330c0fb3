"""What llama.cpp computes on here: the device, its memory. Knows no model."""

import ctypes
import sys
from typing import Any, NamedTuple

import llama_cpp.llama_cpp as ll
from llama_cpp._ggml import libggml

from src.errors import ModelLoadFailed

CPU, GPU, INTEGRATED_GPU = range(3)  # enum ggml_backend_dev_type

libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
libggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)]


_NONE = (ctypes.c_void_p * 1)()  # of the devices: a list that ends at once. llama.cpp reads it while it loads a model


def choose_device(device: str, params: Any) -> str:
    """Set the model parameters for the device asked for: all layers on it or none. Refuses one that this build or machine lacks."""
    gpu = "mps" if sys.platform == "darwin" else "cuda"
    offload = bool(ll.llama_supports_gpu_offload())
    if device not in ("auto", "cpu") and not (offload and device == gpu):
        raise ModelLoadFailed(f"DEVICE_TYPE={device}, but this build of llama.cpp has no such device. Use auto or cpu.")
    # In a virtual machine Metal's backend registers a GPU all the same, of 0 bytes.
    if device != "cpu" and offload and gpu == "mps" and not memory(GPU, INTEGRATED_GPU).total:
        if device == "mps":
            raise ModelLoadFailed(
                "DEVICE_TYPE=mps, but llama.cpp is given no GPU here: a virtual machine, or a sandbox without it. Use auto or cpu."
            )
        offload = False
    if device == "cpu" or not offload:
        params.n_gpu_layers = 0
        params.devices = ctypes.cast(_NONE, ctypes.c_void_p)  # else a context would want the GPU still
        return "cpu"
    params.n_gpu_layers = -1  # all
    return gpu


class DeviceMemory(NamedTuple):
    """In bytes."""

    free: int
    total: int


def free_memory(*kinds: int) -> int:
    """Free bytes of all devices of these kinds together, as llama.cpp sees them."""
    return memory(*kinds).free


def memory(*kinds: int) -> DeviceMemory:
    """Of all devices of these kinds together. On Metal, free is what this process alone has left of the total."""
    found = DeviceMemory(0, 0)
    for index in range(libggml.ggml_backend_dev_count()):
        device = libggml.ggml_backend_dev_get(index)
        if libggml.ggml_backend_dev_type(device) in kinds:
            free, capacity = ctypes.c_size_t(), ctypes.c_size_t()
            libggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(capacity))
            found = DeviceMemory(found.free + free.value, found.total + capacity.value)
    return found
