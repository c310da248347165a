"""What the hardware can do at most: products in each precision, and bytes from memory. Measured.

Published numbers are of no use in a virtual machine. Each is the best of several runs of one large
product and nothing else, or of one large copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.backends.torch_cpu import multiplies_bf16
from benchmarks.backends.torch_cuda import missing as no_gpu
from benchmarks.peak import measure_fp32_peak, measure_int8_peak

_RUNS = 5
_COPY_BYTES = 128 * 2**20  # a thread; far beyond any cache
_CPU_SIZE, _GPU_SIZE = 2048, 8192
_GPU_COPY_BYTES = 2**30


def measure_peaks(threads: int) -> dict[str, Any]:
    """cpu and, where there is one, gpu: {"gflops": {precision: 1e9 operations/s}, "gb_per_s"}.

    A multiply-add is two operations. gb_per_s: bytes read and written by a copy.
    """
    gflops = {
        "fp32": measure_fp32_peak(threads).gops,
        "int8": measure_int8_peak(threads).gops,
    }
    if multiplies_bf16() and (bf16 := _bf16_gflops(threads)) is not None:
        gflops["bf16"] = bf16
    found = {"cpu": {"threads": threads, "gflops": gflops, "gb_per_s": _copy_gb_per_s(threads)}}
    if no_gpu("fp16") is None:
        found["gpu"] = _gpu_peaks()
    return found


def _copy_gb_per_s(threads: int) -> float:
    sources = [np.ones(_COPY_BYTES // 8) for _ in range(threads)]
    targets = [np.empty_like(source) for source in sources]

    def copy() -> None:
        list(pool.map(np.copyto, targets, sources))

    with ThreadPoolExecutor(threads) as pool:
        return 2 * threads * _COPY_BYTES / _fastest_s(copy) / 1e9


def _bf16_gflops(threads: int) -> float | None:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    left, right = (torch.randn(_CPU_SIZE, _CPU_SIZE).bfloat16() for _ in range(2))
    return 2 * _CPU_SIZE**3 / _fastest_s(lambda: torch.mm(left, right)) / 1e9


def _gpu_peaks() -> dict[str, Any]:
    import torch

    def rate(kind: torch.dtype) -> float:
        left, right = (torch.randn(_GPU_SIZE, _GPU_SIZE, device="cuda").to(kind) for _ in range(2))

        def multiply() -> None:
            torch.mm(left, right)
            torch.cuda.synchronize()

        return 2 * _GPU_SIZE**3 / _fastest_s(multiply) / 1e9

    source = torch.ones(_GPU_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    gflops = {"fp16": rate(torch.float16)}
    if torch.cuda.is_bf16_supported():
        gflops["bf16"] = rate(torch.bfloat16)
    return {
        "name": torch.cuda.get_device_name(),
        "gflops": gflops,
        "gb_per_s": 2 * _GPU_COPY_BYTES / _fastest_s(copy) / 1e9,
    }


def _fastest_s(run: Callable[[], object]) -> float:
    """The fastest of a few runs, after one that is not counted."""
    run()
    times_s = []
    for _ in range(_RUNS):
        start_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)
