import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from tests.report import runs

from attar._src.core.errors import AttarError
from attar._src.report.page import build_page

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;<!--"
EMPTY = frozenset({"meta", "link", "br", "img", "input", "hr"})


class Outline(HTMLParser):
    """What a page is made of; scripts and styles are not looked into."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.headings, self.ids, self.links, self.text = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[key] for key in ("href", "src", "action", "poster", "srcset") if key in found]
        if tag not in EMPTY:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture
def page(tmp_path):
    return build_page(runs.demo(tmp_path)).read_text()


def test_the_page_is_beside_the_report(tmp_path):
    assert build_page(runs.small(tmp_path)) == tmp_path / "report.html"
    assert not list(tmp_path.glob(".*.part"))


def test_the_figures_are_files_beside_the_page_with_their_colours(tmp_path):
    page = build_page(runs.small(tmp_path)).read_text()
    (text,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    shown = json.loads(text)
    files = {path.stem: path.read_text() for path in (tmp_path / "figures").iterdir()}
    assert set(files) == set(shown)
    assert "--series" not in "".join(files.values())
    for name, plot in shown.items():
        figures = json.loads(files[name])["figures"]
        assert [figure["alt"] for figure in figures] == [figure["alt"] for figure in plot["figures"]]
        assert all(figure["data"] for figure in figures)


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    first = build_page(runs.small(tmp_path)).read_bytes()
    assert build_page(tmp_path).read_bytes() == first


def test_every_element_is_closed_and_no_id_is_twice(page):
    outline = Outline(page)
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)


def test_headings_go_down_by_one(page):
    levels = Outline(page).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_link_is_to_a_place_on_the_page(page):
    outline = Outline(page)
    assert all(link.removeprefix("#") in outline.ids for link in outline.links if link != "data:,")
    assert len(outline.links) > 8


def test_every_plot_has_words_for_those_who_do_not_see_it(page):
    plots = [found for tag, found in Outline(page).tags if found.get("role") == "img"]
    assert len(plots) == 5
    assert all(found["aria-label"] for found in plots)


def test_the_page_forbids_every_request(page):
    policy = next(found["content"] for _, found in Outline(page).tags if "http-equiv" in found)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_plotly_is_in_the_page_once(page):
    from plotly.offline import get_plotlyjs

    assert page.count(get_plotlyjs()) == 1


def test_hostile_names_are_text_everywhere(tmp_path):
    changes = {
        "name": HOSTILE,
        "layers": [{"name": HOSTILE, "kernel": HOSTILE, "integer": False, "reason": HOSTILE}],
        "left_in_floating_point": {HOSTILE: HOSTILE},
        "notes": {HOSTILE: HOSTILE},
        "record": [{HOSTILE: HOSTILE}],
        "per_class": {HOSTILE: 0.5},
        "curves": [{"stage": HOSTILE, "epoch": 1, "loss": 1.0, HOSTILE: 2.0}],
    }
    fields = {"metric": HOSTILE, "command": HOSTILE, "recipe_yaml": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    folder = runs.small(
        tmp_path,
        models=[changes, {"name": "$title $$"}],
        shapes={HOSTILE: (10, 8)},
        baseline=HOSTILE,
        recipe={"data": HOSTILE},
        **fields,
    )
    text = build_page(folder).read_text()
    outline = Outline(text)
    assert outline.open == []
    assert not [found for tag, found in outline.tags if tag == "img" or "onerror" in found]
    assert sum(tag == "script" for tag, _ in outline.tags) == 3
    assert HOSTILE in "".join(outline.text)
    assert "$title $$" in "".join(outline.text)


def test_the_figures_are_json_that_ends_where_it_should(page):
    (text,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    found = json.loads(text)
    assert not set("<>&'") & set(text)
    assert text.isascii()
    assert set(found) == {"trade", "bytes", "weights", "curves", "classes"}
    assert {figure["labels"][0] for figure in found["bytes"]["figures"]} == {"teacher", "alone", "student"}


def test_one_bare_model_has_a_page(tmp_path):
    bare = {"metric_mean": None, "metric_per_seed": [], "per_class": None, "latency": None, "layers": [], "curves": []}
    outline = Outline(build_page(runs.small(tmp_path, models=[bare])).read_text())
    assert outline.open == []


def test_a_run_that_tells_nothing_has_no_page(tmp_path):
    with pytest.raises(AttarError, match="has no report"):
        build_page(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_plotly_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(AttarError, match=r"the page needs Plotly .*pip install 'attar\[compress\]'"):
        build_page(runs.small(tmp_path))


def test_the_page_is_made_without_pytorch(tmp_path):
    runs.small(tmp_path)
    code = (
        "import sys, pathlib; from attar._src.report.page import build_page; build_page(pathlib.Path(sys.argv[1])); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True, timeout=120)
