"""The folder of a comparison: the faults guarded are lost tries, and one file for two."""

import hashlib
import json

import pytest

from attar._src.core.errors import AttarError, SpecError
from attar._src.search.comparison.comparison_folder import ComparisonFolder
from attar._src.search.comparison.comparison_try import ComparisonTry
from attar._src.search.search_folder import SEARCH_JOURNAL, SearchFolder


def made(folder, strength, data=b"file"):
    path = folder.file_of("m", 0, strength)
    path.write_bytes(data)
    return ComparisonTry(
        method="m",
        variant=0,
        strength=strength,
        options={"quantize": {"max_bytes": 4}},
        file=path.relative_to(folder.path).as_posix(),
        sha256=hashlib.sha256(data).hexdigest(),
        file_bytes=len(data),
        drop=0.1,
        unit="points",
        noise=None,
    )


def test_values_that_nearly_agree_are_two_files(tmp_path):
    folder = ComparisonFolder(tmp_path, resume=False)
    paths = {folder.file_of("a", 0, value) for value in (9_000_000, 9_000_001, 0.9, 0.900001, 900001, None)}
    assert len(paths | {folder.file_of("a", 1, None), folder.file_of("b", 0, None)}) == 8


def test_tries_come_back_and_damaged_files_count_as_not_tried(tmp_path):
    folder = ComparisonFolder(tmp_path, resume=False)
    assert folder.begin({"module": "a"}) == []
    whole, damaged = made(folder, 0.1), made(folder, 0.2)
    failed = ComparisonTry(method="m", variant=0, strength=0.3, options={}, failed="too strong")
    for each in (whole, damaged, failed):
        folder.add(each)
    (tmp_path / damaged.file).write_bytes(b"other")
    assert ComparisonFolder(tmp_path, resume=True).begin({"module": "a"}) == [whole, failed]
    with pytest.raises(SpecError, match="another module"):
        ComparisonFolder(tmp_path, resume=True).begin({"module": "b"})
    with pytest.raises(SpecError, match="go on with it"):
        ComparisonFolder(tmp_path, resume=False)


def test_what_was_decided_stays_decided(tmp_path):
    folder = ComparisonFolder(tmp_path, resume=False)
    folder.begin({"module": "a"})
    assert folder.decide("epochs", lambda: 20) == 20
    assert ComparisonFolder(tmp_path, resume=True).decide("epochs", lambda: 7) == 20


@pytest.mark.parametrize("kind", [SearchFolder, ComparisonFolder])
@pytest.mark.parametrize(
    "row",
    [
        {"event": "begin", "what": "search", "facts": {"module": "a"}},
        {"event": "begin", "what": "comparison", "facts": {"module": "a"}},
        {"event": "begin", "table": {}},
        {"event": "decided", "what": "dry run", "value": 1},
    ],
)
def test_no_command_goes_on_in_the_folder_of_another(kind, row, tmp_path):
    """Guards against folders of two commands: journals are called alike, of runs and sensitivities, too."""
    journal = tmp_path / SEARCH_JOURNAL
    journal.write_text(json.dumps(row) + "\n")
    if row.get("what") == kind.what:
        kind(tmp_path, resume=True).begin({"module": "a"})
        return
    with pytest.raises(SpecError, match="another command's"):
        kind(tmp_path, resume=True)
    assert journal.read_text() == json.dumps(row) + "\n"
    assert [*tmp_path.iterdir()] == [journal]


@pytest.mark.parametrize("kind", [SearchFolder, ComparisonFolder])
def test_what_is_left_out_differs_as_much_as_what_is_added(kind, tmp_path):
    """Guards against a search that goes on without what it began with."""
    given = {"module": "a", "training": {"epochs": 3}}
    kind(tmp_path, resume=False).begin(given)
    kind(tmp_path, resume=True).begin(given)
    for other in ({"module": "a"}, {**given, "goal": 1}, {**given, "training": {"epochs": 4}}):
        with pytest.raises(SpecError, match=r"another (training|goal)"):
            kind(tmp_path, resume=True).begin(other)


@pytest.mark.parametrize("kind", [SearchFolder, ComparisonFolder])
def test_one_process_at_a_time_goes_on_in_a_folder(kind, tmp_path):
    """Guards against two journals in one file."""
    one = kind(tmp_path, resume=False)
    with one.alone():
        one.begin({"module": "a"})
        other = kind(tmp_path, resume=True)
        with pytest.raises(AttarError, match=f"another {kind.what} is active"), other.alone():
            pass
    # It reads what the first wrote before it ended.
    with other.alone(), pytest.raises(SpecError, match="another module"):
        other.begin({"module": "b"})
