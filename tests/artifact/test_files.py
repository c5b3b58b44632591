"""Links are not followed, and what is not a file is not replaced."""

import os
import stat
import sys

import pytest
from tests.samples import conv_net

from attar._src.artifact.files import demand_replaceable, no_link, open_part
from attar._src.artifact.writer import pack, write_atomically
from attar._src.cli import main
from attar._src.core.errors import SpecError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices, FIFOs and links of POSIX")


@pytest.fixture
def places(tmp_path):
    """What must stay: a FIFO, a folder, a socket's stand-in, a link to a FIFO and one to a device."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    (tmp_path / "null").symlink_to("/dev/null")
    return [tmp_path / name for name in ("fifo", "folder", "link", "null")]


def test_what_is_no_file_is_left(places):
    for path in places:
        before = os.lstat(path)
        with pytest.raises(SpecError, match=f"^{path} is a .*, not a file, and is left as it is; name a file to write"):
            write_atomically(path, b"data")
        assert (os.lstat(path).st_ino, stat.S_IFMT(os.lstat(path).st_mode)) == (
            before.st_ino,
            stat.S_IFMT(before.st_mode),
        )
        assert not [*path.parent.glob(".*")]


def test_files_links_to_files_and_nothing_are_replaced(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for name in ("new", "link", "broken"):
        demand_replaceable(tmp_path / name)
        write_atomically(tmp_path / name, b"data")
        assert (tmp_path / name).read_bytes() == b"data"
    assert (tmp_path / "old").read_bytes() == b"old"
    assert not (tmp_path / "nowhere").exists()


def test_a_part_is_a_file_of_its_own(tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / f".m.attar.{os.getpid()}.part").symlink_to(precious)
    write_atomically(tmp_path / "m.attar", b"data")
    assert precious.read_bytes() == b"precious"
    assert (tmp_path / "m.attar").read_bytes() == b"data"
    first, second = open_part(tmp_path / "x"), open_part(tmp_path / "x")
    assert first[1] != second[1]
    for number, _ in (first, second):
        os.close(number)


def test_no_link_is_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), open(tmp_path / "link", "ab", opener=no_link):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_commands_say_so_before_any_work(tmp_path, places, capsys):
    (tmp_path / "m.attar").write_bytes(pack(conv_net()))
    for path in (*places, "/dev/null"):
        assert main(["export", str(tmp_path / "m.attar"), str(path)]) == 1
        assert "is a " in capsys.readouterr().err
