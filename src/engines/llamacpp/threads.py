"""Threads that wait between two steps. Where llama.cpp is built without OpenMP, as on a Mac, it would start some for each step and end
them. Knows no model."""

import ctypes
from contextlib import suppress
from typing import Any

import llama_cpp.llama_cpp as ll
from llama_cpp._ggml import libggml


class Params(ctypes.Structure):
    """struct ggml_threadpool_params of ggml.h."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


def has_openmp() -> bool:
    """It keeps threads by itself."""
    return b"OPENMP = 1" in ll.llama_print_system_info()


class ThreadPool:
    """Of all contexts of one model, of which one computes at a time. None of OpenMP's, of a GPU, or of a single thread."""

    def __init__(self, device: str, threads: int) -> None:
        self._pool: int | None = None
        if device == "cpu" and threads > 1 and not has_openmp():
            with suppress(AttributeError):  # a build whose CPU backend is a library of its own
                self._pool = _new(threads)

    def attach(self, context: Any) -> None:
        if self._pool:
            ll._lib.llama_attach_threadpool(context, self._pool, self._pool)

    def close(self) -> None:
        """After the contexts that have it are freed."""
        if self._pool:
            libggml.ggml_threadpool_free(self._pool)
        self._pool = None


def _new(threads: int) -> int | None:
    ll._lib.llama_attach_threadpool.argtypes = [ctypes.c_void_p] * 3
    ll._lib.llama_attach_threadpool.restype = None
    libggml.ggml_threadpool_free.argtypes = [ctypes.c_void_p]
    libggml.ggml_threadpool_free.restype = None
    libggml.ggml_threadpool_new.argtypes = [ctypes.POINTER(Params)]
    libggml.ggml_threadpool_new.restype = ctypes.c_void_p
    pool: int | None = libggml.ggml_threadpool_new(ctypes.byref(defaults(threads)))
    return pool


def defaults(threads: int) -> Params:
    libggml.ggml_threadpool_params_default.argtypes = [ctypes.c_int]
    libggml.ggml_threadpool_params_default.restype = Params
    params: Params = libggml.ggml_threadpool_params_default(threads)
    return params
