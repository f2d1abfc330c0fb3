"""How llama.cpp may store the keys and values of the KV cache."""

from typing import NamedTuple

import llama_cpp.llama_cpp as ll


class KVTypes(NamedTuple):
    keys: int  # a ggml type
    values: int
    bytes: float  # of a key's and a value's number together


F16 = KVTypes(ll.GGML_TYPE_F16, ll.GGML_TYPE_F16, 2 + 2)
Q8_0 = KVTypes(ll.GGML_TYPE_Q8_0, ll.GGML_TYPE_Q8_0, 2 * 34 / 32)  # blocks of 32 one-byte numbers and their f16 scale
Q8_0_VALUES = KVTypes(ll.GGML_TYPE_F16, ll.GGML_TYPE_Q8_0, 2 + 34 / 32)

KV_TYPES = {"f16": F16, "q8_0": Q8_0, "q8_0_values": Q8_0_VALUES}
