"""The best few of a row of logits, picked before llama.cpp's samplers see them. Knows nothing of jobs or chains.

llama.cpp's own sampling copies all logits of a sequence into 12-byte candidates first. With 20 sequences and a vocabulary
of 49,152 that is 12 MB a step, and took 2.7 ms of it on the machine this was measured on; picking first took 0.7 ms.
"""

import ctypes
from typing import Any

import llama_cpp.llama_cpp as ll
import numpy as np
from numpy.typing import NDArray

BLOCK = 256  # logits

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
assert _TOKEN_DATA.itemsize == ctypes.sizeof(ll.llama_token_data)


class Candidates:
    """Picks candidates from rows of n_vocab logits."""

    def __init__(self, n_vocab: int) -> None:
        self._n_vocab = n_vocab
        self._starts = np.arange(0, n_vocab, BLOCK)
        self.most = len(self._starts)  # candidates that pick() can be asked for

    def row(self, context: Any, output: int) -> NDArray[np.float32]:
        """The logits of a batch's output, where llama.cpp holds them: valid until the next llama_decode."""
        return np.ctypeslib.as_array(ll.llama_get_logits_ith(context, output), shape=(self._n_vocab,))

    def pick(self, row: NDArray[np.float32], count: int) -> NDArray[np.intp]:
        """Ids of the `count` greatest logits, and of a few more, in ascending order of ids.

        The best of each block of logits are found; at least `count` logits reach the count-th best of these.
        """
        best = np.maximum.reduceat(row, self._starts)
        return np.flatnonzero(row >= np.partition(best, -count)[-count])

    def draw(self, chain: Any, row: NDArray[np.float32], ids: NDArray[np.intp]) -> int:
        """The token a sampler chain selects from these ids."""
        data = np.zeros(len(ids), _TOKEN_DATA)
        data["id"] = ids
        data["logit"] = row[ids]
        array = ll.llama_token_data_array(
            data=data.ctypes.data_as(ctypes.POINTER(ll.llama_token_data)), size=len(data), selected=-1, sorted=False
        )
        ll.llama_sampler_apply(chain, ctypes.byref(array))
        return int(array.data[array.selected].id)
