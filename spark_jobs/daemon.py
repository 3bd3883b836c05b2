"""Spark's Python daemon with torch already loaded (`spark.python.daemon.module`).

Spark forks its Python workers from this process, and a worker forks the child that user code runs in.
Importing torch costs seconds a process and the first use of an optimizer some more; here they are
paid once an executor. The process stays single-threaded until the fork: a thread pool would not
survive it.
"""

from __future__ import annotations

import contextlib

from fedhouse.spark_jobs.cpu import pin_cpu_class, single_threaded


def preload() -> None:
    """Import and touch what a training child uses first, without starting a thread."""
    single_threaded()
    pin_cpu_class()
    import safetensors.torch  # noqa: F401
    import torch

    import fedhouse.spark_jobs.child
    import fedhouse.spark_jobs.partition  # noqa: F401

    torch.set_num_threads(1)
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    # The first step of an optimizer imports the compiler stack, whether or not it is used.
    torch.optim.Adam([weight]).step()
    torch.optim.SGD([weight], lr=0.1).step()


if __name__ == "__main__":
    # An executor without torch still serves other Python tasks; training there fails and says why.
    with contextlib.suppress(ImportError):
        preload()
    from pyspark.daemon import manager

    manager()  # type: ignore[no-untyped-call]
