"""In CI a skip whose reason is not listed is a failure; elsewhere it is a skip."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = {
    "unlisted": "import pytest\ndef test():\n    pytest.skip('the moon is full')\n",
    "listed": "import pytest\ndef test():\n    pytest.skip('no GPU on this machine')\n",
    "marked": "import pytest\n@pytest.mark.skip(reason='the moon is full')\ndef test():\n    pass\n",
    "module": "import pytest\npytest.skip('the moon is full', allow_module_level=True)\n",
    "missing": "import pytest\npytest.importorskip('no_such_package_anywhere')\n",
    "expected": "import pytest\n@pytest.mark.xfail(reason='the moon is full')\ndef test():\n    assert 0\n",
    "passing": "def test():\n    pass\n",
}


def _outcome(folder: Path, root: Path, kind: str, *, ci: bool) -> subprocess.CompletedProcess[str]:
    shutil.copy(root / "tests/conftest.py", folder / "conftest.py")
    (folder / "allowed_skips.txt").write_text("# GPUs are rare.\nno GPU *\n")
    (folder / "test_it.py").write_text(TESTS[kind])
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(folder),
            str(folder),
        ],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"} | ({"CI": "true"} if ci else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("kind", ["unlisted", "marked", "module", "missing", "expected"])
def test_an_unlisted_skip_fails_ci(kind: str, tmp_path: Path, root: Path) -> None:
    done = _outcome(tmp_path, root, kind, ci=True)
    assert done.returncode != 0
    assert "allowed_skips.txt does not list" in done.stdout


@pytest.mark.parametrize("kind", ["listed", "passing"])
def test_ci_lets_listed_skips_and_passes_through(kind: str, tmp_path: Path, root: Path) -> None:
    assert _outcome(tmp_path, root, kind, ci=True).returncode == 0


@pytest.mark.parametrize("kind", ["unlisted", "marked", "expected"])
def test_elsewhere_a_skip_is_a_skip(kind: str, tmp_path: Path, root: Path) -> None:
    assert _outcome(tmp_path, root, kind, ci=False).returncode == 0


def test_each_listed_reason_says_why(root: Path) -> None:
    lines = (root / "tests/allowed_skips.txt").read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.strip() and not line.startswith("#"):
            assert before.startswith("#"), f"say above '{line}' why it may be skipped"
