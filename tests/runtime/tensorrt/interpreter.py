"""A process that runs the Triton kernel on Triton's interpreter.

Triton decides between compiler and interpreter when it is imported, so that the tests of
both cannot share a process. Requests and answers are pickles on stdin and stdout.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray


def main() -> None:
    """Answer ``(x, element, grid, constants)`` with ``(y, reads)`` until stdin ends.

    ``x`` is (N, C, H, W) float32 whose values the element type holds; ``reads`` is (N, C, H, W)
    int64, how often each element was loaded.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    import torch
    import triton
    from triton.runtime.interpreter import InterpreterBuilder

    from sa_runtime.tensorrt.kernel import attention_pool_kernel

    assert triton.knobs.runtime.interpret
    types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    loads: Counter[int] = Counter()
    plain = InterpreterBuilder.create_masked_load

    def counting(self: Any, ptrs: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        loads.update(ptrs.data[mask.data.astype(bool)].tolist())
        return plain(self, ptrs, mask, *rest, **named)

    InterpreterBuilder.create_masked_load = counting
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, prints to stderr
    while True:
        try:
            values, element, grid, constants = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        x = torch.from_numpy(values).to(types[element])
        y = torch.full((*x.shape[:2], constants["P"]), float("nan"), dtype=x.dtype)
        loads.clear()
        attention_pool_kernel[grid](x, y, **constants)
        reads: NDArray[np.int64] = np.zeros(x.numel(), np.int64)
        for address, count in loads.items():
            reads[(address - x.data_ptr()) // x.element_size()] += count
        pickle.dump((y.float().numpy(), reads.reshape(x.shape)), answers)
        answers.flush()


if __name__ == "__main__":
    main()
