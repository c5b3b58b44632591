"""Searches that several processes run: on one folder, on one storage with folders of their own, on a Ray cluster."""

import os
import traceback
from importlib.util import find_spec

import pytest
from tests.search.trials.small import NETS

import attar

TREE = {
    "data": {"source": "nets.py:sets", "validation": 0.25},
    "threads": 1,
    "models": {"net": {"source": {"factory": "nets.py:net", "arguments": {"width": {"choose": [4, 5, 6, 7]}}}}},
    "search": {"minimise": "bytes", "sampler": "random", "trials": 4},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    (folder / "nets.py").write_text(NETS)
    return folder


def in_two_processes(tree, mine, theirs):
    """Run a search here and in a fork of this process; return the result, and the lines of both."""
    lines, said = [], mine.parent / "said"
    child = os.fork()
    if not child:
        code = 1
        try:
            with said.open("w") as file:
                attar.run_search(tree, theirs, resume=True, on_step=lambda line: print(line, file=file, flush=True))
            code = 0
        except BaseException:  # noqa: BLE001 - a child ends here, whatever happened
            traceback.print_exc()
        finally:
            os._exit(code)
    found = attar.run_search(tree, mine, resume=True, on_step=lines.append)
    assert os.waitpid(child, 0)[1] == 0
    return found, lines, said.read_text().splitlines()


@pytest.mark.parametrize("folders", ["one", "two"])
def test_two_processes_share_the_trials(place, folders):
    where = place / folders
    where.mkdir()
    tree = TREE | {"root": str(place)}
    theirs = where / "a"
    if folders == "two":
        theirs = where / "b"
        tree["search"] = tree["search"] | {"storage": f"sqlite:///{where / 'shared.db'}"}
    _, mine, others = in_two_processes(tree, where / "a", theirs)
    assert mine
    assert others
    numbers = sorted(line.split(":")[0] for line in mine + others)
    assert numbers == [f"trial {n}" for n in range(4)], "each trial is run once"
    # Whoever comes back has the files of all, wherever they were made.
    again = attar.run_search(tree, where / "a", resume=True)
    assert len(again.files) == 5
    assert not again.failed
    for name in again.recipes:
        assert (again.folder / "files" / f"{name.replace(' ', '-')}.attar").is_file()


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'attar[ray]'")
def test_a_worker_that_is_killed_loses_its_trial_alone(place, tmp_path):
    """On a local cluster; the process of one trial kills itself."""
    (tmp_path / "nets.py").write_text(
        NETS
        + """

def deadly(width=16):
    if width == 5:
        import os
        os.kill(os.getpid(), 9)
    return net(width)
"""
    )
    tree = TREE | {"root": str(tmp_path)}
    tree["models"] = {"net": {"source": {"factory": "nets.py:deadly", "arguments": {"width": {"choose": [4, 5, 6]}}}}}
    found = attar.run_search(tree, tmp_path / "out", ray="local", settings=["search.trials=3"])
    ((_, why),) = found.failed.items()
    assert "its worker was lost" in why
    assert {each.options["models.net.source.arguments.width"] for each in found.files[1:]} == {4, 6}
    for each in found.files:
        assert (found.folder / each.file).is_file()
