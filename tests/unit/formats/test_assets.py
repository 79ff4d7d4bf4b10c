"""Asset files are read inside their directory only."""

import os

import pytest

from keras_metagraph.errors import FormatError, UntrustedContentError
from keras_metagraph.formats.assets import assets_directory, read_asset


@pytest.fixture
def assets(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "assets"
    (folder / "deep").mkdir(parents=True)
    (folder / "words").write_text("a\nb\n")
    (folder / "deep" / "words").write_text("c\n")
    return folder


@pytest.mark.parametrize("name", ["words", "deep/words", "deep/../words"])
def test_reads_files_inside(assets, name):
    assert read_asset(str(assets), name) in (b"a\nb\n", b"c\n")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "", ".", "a\0b", ".."])
def test_refuses_names_that_lead_out(assets, name):
    with pytest.raises(UntrustedContentError):
        read_asset(str(assets), name)


def test_refuses_links_that_lead_out(assets, tmp_path):
    (assets / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UntrustedContentError):
        read_asset(str(assets), "link")
    (assets / "inside").symlink_to(assets / "words")
    assert read_asset(str(assets), "inside") == b"a\nb\n"


def test_refuses_what_is_no_file(assets):
    os.mkfifo(assets / "pipe")
    for name in ("pipe", "deep", "nothing"):
        with pytest.raises(FormatError, match="cannot be read"):
            read_asset(str(assets), name)


def test_refuses_large_files(assets):
    with pytest.raises(FormatError, match="more than 2"):
        read_asset(str(assets), "words", max_bytes=2)


def test_directory(assets, tmp_path, monkeypatch):
    assert assets_directory(str(tmp_path)) == str(assets)
    assert assets_directory(str(assets)) is None
    monkeypatch.chdir(tmp_path)
    assert assets_directory("") == "assets"
