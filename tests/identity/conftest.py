"""A PKCS#11 token in software, made for one test module and gone after it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

NEEDED = "SoftHSM is not installed, and only root can install it"


def _library() -> Path | None:
    usual = Path("/usr/lib/softhsm/libsofthsm2.so")
    folders = (Path(name) for name in ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt"))
    others = (found for folder in folders for found in folder.rglob("libsofthsm2.so"))
    return usual if usual.exists() else next(others, None)


def _installed() -> Path:
    library = _library()
    if library is None or shutil.which("softhsm2-util") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip(NEEDED)
        for command in (["update", "-q"], ["install", "-y", "-q", "softhsm2"]):
            quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", *command], check=True, capture_output=True, timeout=300, env=quiet)
        library = _library()
        assert library is not None
    return library


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A token: `library`, its `label` and its `pin`. The library reads its environment when it starts."""
    pkcs11 = pytest.importorskip("pkcs11")
    library = _installed()
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    made = SimpleNamespace(library=library, label="consortium AA", pin=b"canary-pin-7301")
    init = ["softhsm2-util", "--init-token", "--free", "--label", made.label, "--so-pin", "so-pin-5520"]
    subprocess.run([*init, "--pin", made.pin.decode()], check=True, capture_output=True, timeout=60)
    yield made
    pkcs11.unload(str(library.resolve()))
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before
