"""Turning Spark's exceptions into our own: their class is passed on, their text is not.

Spark's messages quote values ("The value 'John Smith' … cannot be cast"), and its traces quote more.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from fedhouse.errors import FedhouseError, SparkFailureError

_CLASS = re.compile(r"[A-Z][A-Z0-9_.]{2,80}")
_JAVA_CLASS = re.compile(r"\b(?:java|javax|org\.apache|io)(?:\.[A-Za-z0-9_$]+){1,8}(?:Exception|Error)\b")


@contextlib.contextmanager
def spark_failures(doing: str) -> Iterator[None]:
    """Run Spark code; whatever it raises becomes a `SparkFailureError` that names its error class.

    Raises
    ------
    SparkFailureError
        Without the foreign message and without the foreign exception as its cause.
    """
    try:
        yield
    except FedhouseError:
        raise
    except Exception as error:
        kind = type(error).__module__
        if not kind.startswith(("pyspark", "py4j", "grpc")):
            raise
        raise SparkFailureError(
            f"Spark failed while {doing}: {failure_class(error)}.",
            mend="The executor's own log has the rest.",
        ) from None


def failure_class(error: BaseException) -> str:
    """Spark's error condition, else the class of a Java exception, else of the Python one."""
    condition = getattr(error, "getCondition", None)
    told = condition() if callable(condition) else None
    if isinstance(told, str) and _CLASS.fullmatch(told):
        return told
    found = _JAVA_CLASS.findall(str(error))
    return found[-1] if found else type(error).__name__
