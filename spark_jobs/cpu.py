"""Which instructions the bits of a training depend on.

Floating-point sums differ between instruction sets, so fedhouse pins the class where it can, records
it, and promises equal bits within one class only.
"""

from __future__ import annotations

import os
from pathlib import Path


def cpu_class_environment() -> dict[str, str]:
    """Environment that makes torch and MKL use AVX2 where the processor has it."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    return {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"} if " avx2 " in flags else {}


def pin_cpu_class() -> None:
    """Set `cpu_class_environment` in this process. Only before torch is first imported."""
    for name, value in cpu_class_environment().items():
        os.environ.setdefault(name, value)


def single_threaded() -> None:
    """One thread a process for every numeric library. Only before numpy and torch are imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"


def cpu_class() -> str:
    """The instruction set that torch uses in this process, for example `AVX2`."""
    import torch

    return str(torch.backends.cpu.get_cpu_capability())
