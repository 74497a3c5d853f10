"""The jobs by llama-cpp-python."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import llama_cpp
import numpy as np

Run = Callable[[], tuple[float, np.ndarray]]


def gemma(threads: int, path: str, tokens: str, text: str) -> Run:
    """Hidden states of Gemma after the last norm; all tokens in one batch."""
    count = int(tokens)
    quiet = {"verbose": False, "n_threads": threads, "n_threads_batch": threads}
    size = {"n_ctx": count, "n_batch": count, "n_ubatch": count}
    llama = llama_cpp.Llama(
        path, embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_NONE, n_gpu_layers=0, **quiet, **size
    )
    ids = llama.tokenize(text.encode())
    assert len(ids) == count, len(ids)
    context, batch = llama._ctx.ctx, llama_cpp.llama_batch_init(count, 0, 1)
    batch.n_tokens = count
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1

    def run() -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        assert llama_cpp.llama_decode(context, batch) == 0
        found = llama_cpp.llama_get_embeddings(context)
        states = np.ctypeslib.as_array(
            ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (count, llama.n_embd())
        ).copy()
        return time.perf_counter() - start, states

    return run
