"""Profiles and the registry: references, secrets that do not show, plug-ins."""

from __future__ import annotations

import json
import logging
import pickle
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.connectors import registry
from fedhouse.connectors.profiles import Profile, Profiles, Secret, load_profiles
from fedhouse.connectors.registry import kinds, open_connector
from fedhouse.errors import ConfigurationError, ProfileError

CANARY = "canary-0b91"
TEXT = """
warehouse:
  target: prod
  outputs:
    prod: {type: parquet, root: "file:///lake", token: "{{ env_var('LAKE_TOKEN') }}"}
    dev: {type: parquet, root: "{{ env_var('LAKE', '/tmp/lake') }}"}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "profiles.yaml"
    path.write_text(TEXT)
    return path


def test_references_become_secrets(path: Path) -> None:
    profile = load_profiles(path, environ={"LAKE_TOKEN": CANARY})["warehouse"]
    token = profile.options["token"]
    assert isinstance(token, Secret)
    assert token.reveal() == CANARY == profile.text("token")
    assert (profile.type, profile.target, profile.options["root"]) == ("parquet", "prod", "file:///lake")


def test_a_secret_does_not_show(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    profile = load_profiles(path, environ={"LAKE_TOKEN": CANARY})["warehouse"]
    token = profile.options["token"]
    logging.getLogger("test").warning("%s %r", profile, token)
    shown = [repr(profile), f"{token} {token!r} {token:>10}", str([token]), caplog.text]
    assert not [text for text in shown if CANARY in text]
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(profile)
    with pytest.raises(TypeError):
        json.dumps({"token": token})
    assert hash(token) == hash(Secret("another"))


def test_targets(path: Path) -> None:
    profiles = load_profiles(path, target="dev", environ={})
    assert profiles["warehouse"].text("root") == "/tmp/lake"  # noqa: S108 - a name, not a folder of ours
    with pytest.raises(ProfileError, match=r"has no target 'test'. It has prod, dev"):
        load_profiles(path, target="test", environ={})["warehouse"]


def test_an_unset_variable_is_named_and_only_when_asked_for(path: Path) -> None:
    profiles = load_profiles(path, environ={})
    assert list(profiles) == ["warehouse"]
    words = r"key token refers to the environment variable LAKE_TOKEN, which is not set"
    with pytest.raises(ProfileError, match=words):
        profiles["warehouse"]


def test_files_are_read_and_named_if_they_cannot_be(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(CANARY + "\n")
    path = tmp_path / "profiles.yaml"
    text = "w: {target: t, outputs: {t: {type: parquet, root: \"{{ file('PATH') }}\"}}}"
    path.write_text(text.replace("PATH", str(secret)))
    assert load_profiles(path)["w"].text("root") == CANARY
    path.write_text(text.replace("PATH", str(tmp_path / "gone")))
    with pytest.raises(ProfileError, match=r"gone, which cannot be read \(FileNotFoundError\)"):
        load_profiles(path)["w"]
    secret.write_bytes(b"\xff" + CANARY.encode())
    path.write_text(text.replace("PATH", str(secret)))
    with pytest.raises(ProfileError) as caught:
        load_profiles(path)["w"]
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w: 1", "key 'target' is missing"),
        ("w: {target: t, outputs: {}}", "outputs"),
        ("w: {target: t, outputs: {t: {root: x}}}", "'type' is missing"),
        ("w: {target: t, outputs: {t: {type: parquet, root: [1]}}}", "must be text"),
        ("w: {target: t, output: {}, outputs: {t: {type: parquet}}}", "unknown key 'output'"),
        ("w: {target: t, outputs: {t: {type: parquet, root: '{{ 7 * 7 }}'}}}", "not understood"),
        ("w: {target: t, outputs: {t: {type: parquet, root: '{{ env_var(HOME) }}'}}}", "not understood"),
        ("w: {target: t, outputs: {t: {type: parquet, root: '}}'}}}", "not understood"),
    ],
)
def test_a_wrong_profile_says_what(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "profiles.yaml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=words) as caught:
        load_profiles(path, environ={})["w"]
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_names_those_there_are(path: Path) -> None:
    with pytest.raises(ProfileError, match=r"has no profile 'ware'. It has warehouse"):
        load_profiles(path)["ware"]


@given(st.text(alphabet="{} env_var('A)\",x\\n", max_size=40))
def test_templates_either_resolve_or_raise(text: str) -> None:
    written = {"w": {"target": "t", "outputs": {"t": {"type": "parquet", "root": text}}}}
    profiles = Profiles("profiles.yaml", written, None, {"A": CANARY})
    try:
        value = profiles["w"].options["root"]
    except ProfileError as error:
        assert CANARY not in str(error)  # noqa: PT017 - either outcome is fine
    else:
        assert isinstance(value, Secret) == (value != text)


def test_the_registry_opens_parquet_and_names_what_there_is() -> None:
    assert "parquet" in kinds()
    assert open_connector(Profile("w", "parquet", "t", {"root": "/lake"})).kind == "parquet"
    with pytest.raises(ProfileError, match=r"unknown type 'oracle'. There are parquet"):
        open_connector(Profile("w", "oracle", "t", {}))


def test_a_broken_plug_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("gone", "no.such.module:Connector", registry.GROUP),
        EntryPoint("bad", "builtins:int", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(ConfigurationError, match=r"no.such.module:Connector does not load \(ModuleNotFound"):
        open_connector(Profile("w", "gone", "t", {}))
    with pytest.raises(ConfigurationError, match=r"builtins:int fails to open \(TypeError\)"):
        open_connector(Profile("w", "bad", "t", {"root": Secret(CANARY)}))


def test_two_plug_ins_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("x", value, registry.GROUP) for value in ("builtins:int", "builtins:str")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(ConfigurationError, match="Two distributions offer a connector 'x'"):
        kinds()
