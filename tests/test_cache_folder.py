"""The cache folder is the one that the user or the platform names; a missing home folder is an error with advice."""

import pwd

import pytest

from yolox_jax.cache_folder import cache_folder
from yolox_jax.errors import UserError


def no_home_folder(monkeypatch):
    """A container's user with no HOME and no entry in the password file."""

    def unknown_user(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "YOLOX_JAX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown_user)


def test_the_users_own_folder_is_first_then_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("YOLOX_JAX_HOME", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("YOLOX_JAX_HOME")
    assert tmp_path in cache_folder().parents and cache_folder().name == "yolox_jax"


def test_the_error_for_a_missing_home_folder_says_what_to_set(monkeypatch, tmp_path):
    no_home_folder(monkeypatch)
    with pytest.raises(UserError, match="no home folder for the cache: set YOLOX_JAX_HOME"):
        cache_folder()
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path))
    assert cache_folder() == tmp_path


def test_an_address_is_refused(monkeypatch):
    monkeypatch.setenv("YOLOX_JAX_HOME", "gs://bucket/cache")
    with pytest.raises(UserError, match="YOLOX_JAX_HOME is gs://bucket/cache: give a local folder"):
        cache_folder()
