"""The best few of a row of logits, picked before llama.cpp's samplers see them. Knows nothing of jobs or chains.

llama.cpp's own sampling copies all logits of a sequence into 12-byte candidates first. With 20 sequences and a vocabulary
of 49,152 that is 12 MB a step, and took 2.7 ms of it on the machine this was measured on; picking first took 0.6 ms.
"""

import ctypes
from typing import Any

import llama_cpp.llama_cpp as ll
import numpy as np
from numpy.typing import NDArray

GROUPS = 1024  # more of them find the best few more exactly

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
assert _TOKEN_DATA.itemsize == ctypes.sizeof(ll.llama_token_data)


Row = NDArray[np.float32]  # (n_vocab,)
Ids = NDArray[np.intp]


class Candidates:
    """Picks candidates from rows of n_vocab logits."""

    def __init__(self, n_vocab: int) -> None:
        self._row_type = ctypes.c_float * n_vocab
        self._whole = n_vocab // GROUPS * GROUPS
        self.most = GROUPS // 2 if n_vocab >= 4 * GROUPS else 0  # candidates that pick() can be asked for
        self._data = np.empty(n_vocab, _TOKEN_DATA)
        self._pointer = self._data.ctypes.data_as(ctypes.POINTER(ll.llama_token_data))

    def row(self, context: Any, output: int) -> Row:
        """The logits of a batch's output, where llama.cpp holds them: valid until the next llama_decode."""
        logits = ll.llama_get_logits_ith(context, output)
        return np.frombuffer(memoryview(self._row_type.from_address(ctypes.addressof(logits.contents))), np.float32)

    def pick(self, row: Row, count: int) -> Ids:
        """Ids of the `count` greatest logits, and of a few more, in ascending order of ids.

        Every GROUPS-th logit is of one group. At least `count` logits reach the count-th best of the groups' best.
        """
        best = row[: self._whole].reshape(-1, GROUPS).max(axis=0)
        rest = row[self._whole :]
        np.maximum(best[: len(rest)], rest, out=best[: len(rest)])
        best.partition(GROUPS - count)
        ids: Ids = (row >= best[GROUPS - count]).nonzero()[0]
        return ids

    def sample(self, chain: Any, row: Row, ids: Ids) -> int:
        """The token a sampler chain selects from these ids."""
        data = self._data[: len(ids)]
        data["id"] = ids
        data["logit"] = row[ids]
        array = ll.llama_token_data_array(data=self._pointer, size=len(ids), selected=-1, sorted=False)
        ll.llama_sampler_apply(chain, ctypes.byref(array))
        return int(array.data[array.selected].id)
