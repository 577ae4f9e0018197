"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from crnn.errors import OptionError
from crnn.files import write_whole


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_does_not_become_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OptionError, match=f"{name}: a pipe or a device, not a file"):
            write_whole(tmp_path / name, "text")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode) and sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("before")
    (tmp_path / "own").symlink_to("shared")
    write_whole(tmp_path / "own", "text")
    assert (tmp_path / "own").read_text() == "text" and (tmp_path / "shared").read_text() == "before"


def test_errors_name_what_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none/file: cannot be written \(No such file or directory\)"):
        write_whole(tmp_path / "none" / "file", "text")
    with pytest.raises(OptionError, match=r"cannot be written"):
        write_whole(tmp_path, "text")
