"""What this machine has and lacks for training, each lack with the command that mends it.

Looked at without importing Spark, torch or any other heavy package, so that it works where they are
broken. `required` are the things without which a silo cannot train here; everything else is told and
counts for nothing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from fedhouse.spark_jobs.session import SUPPORTED_JAVA, java_version

# The extras that training needs. Spark is looked at apart, because a platform may bring its own.
REQUIRED_EXTRAS = ("silo",)
SUPPORTED_PYTHON = ((3, 11), (3, 14))
TESTED_SPARK = (4, 1)
OLDEST_SPARK = (3, 5)
_GIB = 2**30
# The default demo is measured to fit in these.
_MEMORY = 8 * _GIB
_DISK = 4 * _GIB
# Where Debian and Ubuntu put every Java, whichever of them `java` is.
_JVMS = Path("/usr/lib/jvm")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - looked at, never written

Status = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `mend` is empty unless something is missing or could be better."""

    name: str
    status: Status
    found: str
    mend: str = ""
    required: bool = False


@dataclass(frozen=True)
class Examination:
    """All findings of one look at a machine."""

    findings: tuple[Finding, ...]

    @property
    def fit(self) -> bool:
        """Whether everything required is there."""
        return not any(item.required and item.status == "missing" for item in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The form that `fedhouse doctor --json` prints."""
        return {"fit": self.fit, "findings": [asdict(item) for item in self.findings]}


def examine() -> Examination:
    """Look at this machine. Takes well under a second, starts no Spark and opens no outside connection."""
    checks = (_python, _java, _spark, _extras, _memory, _disk, _shared_memory, _cpu, _user_code, _loopback)
    return Examination(tuple(finding for check in checks for finding in check()))


def _python() -> Iterator[Finding]:
    low, end = SUPPORTED_PYTHON
    version = sys.version_info[:2]
    found = ".".join(str(part) for part in sys.version_info[:3])
    if low <= version < end:
        yield Finding("python", "ok", found, required=True)
    else:
        mend = "Install Python 3.11, 3.12 or 3.13 and make the environment anew with it."
        yield Finding("python", "missing", found, mend, required=True)


def _java() -> Iterator[Finding]:
    version = java_version()
    if version in SUPPORTED_JAVA:
        yield Finding("java", "ok", str(version), required=True)
        return
    installed = sorted(home for java in SUPPORTED_JAVA for home in _JVMS.glob(f"*-{java}-*") if home.is_dir())
    if installed:
        mend = f"Run: export JAVA_HOME={installed[0]}"
    elif os.environ.get("JAVA_HOME"):
        mend = "JAVA_HOME points at another one: unset it, or point it at a Java 17 or 21."
    else:
        mend = f"Run: sudo apt-get install {_java_package()}"
    yield Finding("java", "missing", str(version or "none"), mend, required=True)


def _java_package() -> str:
    """Debian 13 has no 17; everything else that is supported has."""
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        release = ""
    debian = re.search(r"^ID=debian$", release, re.M) and re.search(r'^VERSION_ID="?(\d+)', release, re.M)
    return f"openjdk-{21 if debian and int(debian.group(1)) >= 13 else 17}-jre-headless"


def _spark() -> Iterator[Finding]:
    version = _pyspark_version()
    install = f"{_install('local-spark')}; or start through the platform's spark-submit."
    if version is None:
        yield Finding("pyspark", "missing", "none", install, required=True)
    elif version.release[:2] == TESTED_SPARK:
        yield Finding("pyspark", "ok", str(version), required=True)
    elif OLDEST_SPARK <= version.release[:2] < TESTED_SPARK:
        yield Finding("pyspark", "note", str(version), "fedhouse is tested with Spark 4.1.", required=True)
    else:
        yield Finding("pyspark", "missing", f"{version}, and 4.1 is needed", install, required=True)


def _pyspark_version() -> Version | None:
    """Of the pyspark that an import would find; on a cluster it lies in SPARK_HOME, without metadata."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
        told = re.search(r'^__version__[^=]*=\s*["\']([^"\']+)["\']', text, re.M)
        return Version(told.group(1)) if told else None
    except (OSError, InvalidVersion):
        return None


def _extras() -> Iterator[Finding]:
    """One finding an extra; pip's own rules say what belongs to it."""
    try:
        metadata = importlib.metadata.metadata("fedhouse")
        requirements = [Requirement(line) for line in importlib.metadata.requires("fedhouse") or []]
    except importlib.metadata.PackageNotFoundError:
        yield Finding("fedhouse", "missing", "not installed", "Run: make install", required=True)
        return
    for extra in sorted(metadata.get_all("Provides-Extra") or []):
        if extra in ("all", "local-spark"):
            continue
        members = [item for item in requirements if _belongs(item, extra)]
        bad = [text for item in members if (text := _unmet(item))]
        required = extra in REQUIRED_EXTRAS
        name = f"fedhouse[{extra}]"
        if bad:
            yield Finding(name, "missing", ", ".join(bad), _install(extra), required)
        else:
            found = ", ".join(f"{item.name} {importlib.metadata.version(item.name)}" for item in members)
            yield Finding(name, "ok", found, required=required)


def _install(extra: str) -> str:
    """Never the bare name: fedhouse is on no package index, and somebody else could put it there."""
    return f"Run: make install; or: pip install 'FEDHOUSE.whl[{extra}]'"


def _belongs(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _unmet(requirement: Requirement) -> str:
    """What is wrong with the installed version, or nothing."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version} does not fit {requirement.specifier}"


def _memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        # A container's limit; "max" where there is none.
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    found = f"{total / _GIB:.1f} GiB"
    if total >= 0.9 * _MEMORY:  # a machine of 8 GB shows a little less
        yield Finding("memory", "ok", found)
    else:
        yield Finding("memory", "note", found, "The default demo is measured on 8 GiB; take fewer silos.")


def _disk() -> Iterator[Finding]:
    for name, folder in (
        ("disk here", Path.cwd()),
        ("disk for temporary files", Path(tempfile.gettempdir())),
    ):
        free = shutil.disk_usage(folder).free
        found = f"{free / _GIB:.1f} GiB free in {folder}"
        if free >= _DISK:
            yield Finding(name, "ok", found)
        else:
            yield Finding(name, "note", found, f"Have {_DISK // _GIB} GiB free, or set TMPDIR elsewhere.")


def _shared_memory() -> Iterator[Finding]:
    folder = Path(_SHARED_MEMORY)
    if folder.is_dir() and os.access(folder, os.W_OK):
        yield Finding(_SHARED_MEMORY, "ok", f"{shutil.disk_usage(folder).free / _GIB:.1f} GiB free")
    else:
        mend = "Mount it: mount -t tmpfs tmpfs /dev/shm. torch's own data loaders need it."
        yield Finding(_SHARED_MEMORY, "note", "not there or not writable", mend)


def _cpu() -> Iterator[Finding]:
    try:
        flags = set(re.findall(r"\bavx\w*", Path("/proc/cpuinfo").read_text()))
    except OSError:
        flags = set()
    kind = "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "neither avx2 nor avx512"
    found = f"{os.cpu_count()} cores, {kind}"
    if "avx2" in flags:
        yield Finding("cpu class", "ok", f"{found}; training is pinned to avx2")
    else:
        mend = "Weights will not be the same bits as on machines that have avx2."
        yield Finding("cpu class", "note", found, mend)


def _user_code() -> Iterator[Finding]:
    found = "process: a child process with limits, an empty environment, and no sandbox"
    yield Finding("user code level", "ok", found)


def _loopback() -> Iterator[Finding]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        mend = "Bring it up: ip link set lo up. Spark's driver and Python talk over it."
        yield Finding("loopback", "missing", error.strerror or "unreachable", mend, required=True)
    else:
        yield Finding("loopback", "ok", "127.0.0.1 answers", required=True)
