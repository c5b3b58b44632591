"""``examples/c`` decodes the LeNets of the studies to Python's bytes, and the code in ``docs/c.md`` runs."""

import re
import shutil
import subprocess
import sys

import pytest
from tests.device.program import HEADER
from tests.house.repository import ROOT, blocks

from attar._src.artifact.reader import open_artifact
from attar._src.artifact.repack import repack

EXAMPLE = ROOT / "examples/c"
FILES = {path.stem: path for path in sorted(ROOT.glob("studies/lenet/*.attar"))}


def compiled(tmp_path, source):
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{HEADER.parent}", f"-I{tmp_path}"]
    subprocess.run([*command, str(source), "-o", str(tmp_path / "program")], check=True)
    return tmp_path / "program"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("again", [False, True], ids=["committed", "repacked"])
def test_it_prints_what_python_prints(name, again, tmp_path):
    program = compiled(tmp_path, EXAMPLE / "decode.c")
    path = tmp_path / "net.attar"
    path.write_bytes(repack(open_artifact(FILES[name]), short=True) if again else FILES[name].read_bytes())
    c = subprocess.run([program, path], check=True, capture_output=True, text=True).stdout
    python = [sys.executable, EXAMPLE / "decode.py", path]
    assert c == subprocess.run(python, check=True, capture_output=True, text=True).stdout
    assert c.count("\n") == len(open_artifact(path).names)


def test_it_says_what_is_wrong(tmp_path):
    program = compiled(tmp_path, EXAMPLE / "decode.c")
    done = subprocess.run([program, EXAMPLE / "decode.c"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("opening the file: status 10,")


def test_the_code_of_the_page(tmp_path):
    (block,) = [block for block in blocks(ROOT / "docs/c.md") if block.language == "c"]
    data = FILES["lenet_300_100"].read_bytes()
    (tmp_path / "model.h").write_text(f"static const unsigned char model[] = {{{','.join(map(str, data))}}};\n")
    source = tmp_path / "page.c"
    source.write_text(block.text + "int main(void)\n{\n    return !load() || codes[0] != (int8_t)FIRST;\n}\n")
    first = int(open_artifact(data).tensor("1.weight").codes.flat[0])
    source.write_text(source.read_text().replace("FIRST", str(first)))
    subprocess.run([compiled(tmp_path, source)], check=True)


def test_the_page_lists_every_status():
    page = (ROOT / "docs/c.md").read_text()
    declared = re.search(r"enum attar_status \{(.*?)\}", HEADER.read_text(), re.DOTALL)[1]
    for status in re.findall(r"^    (ATTAR_[A-Z_]+)", declared, re.MULTILINE):
        assert f"`{status}`" in page, status
