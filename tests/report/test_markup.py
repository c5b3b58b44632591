import json

import pytest

from attar._src.report.markup import Html, join, script_json, table_markup, tag

HOSTILE = "</script><img src=x onerror=alert(1)> & \"'"


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "a < b & c", Html("<b>d</b>")) == "<p>a &lt; b &amp; c<b>d</b></p>"
    assert join(["<", Html("<hr>")]) == "&lt;<hr>"


def test_what_was_joined_is_markup_and_stays_as_it_is():
    assert tag("p", tag("b", "<")) == "<p><b>&lt;</b></p>"


def test_attributes_are_escaped():
    assert tag("a", "x", title=HOSTILE) == (
        '<a title="&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; &amp; &quot;&#x27;">x</a>'
    )


def test_attributes_have_the_names_that_html_gives_them():
    made = tag("div", class_="c", aria_label="l", open=True, hidden=False, id=None)
    assert made == '<div class="c" aria-label="l" open></div>'


def test_a_table_says_what_its_headings_head():
    made = table_markup("What <it> shows", ["Name", "Bytes"], [["a<b", "1"], ["c", "2"]], numbers=[1], marked=[1])
    assert "<caption>What &lt;it&gt; shows</caption>" in made
    assert '<th scope="col">Name</th><th scope="col" class="n">Bytes</th>' in made
    assert '<tr><th scope="row">a&lt;b</th><td class="n">1</td></tr>' in made
    assert '<tr class="marked"><th scope="row">c</th>' in made
    assert 'tabindex="0" role="region" aria-label="What &lt;it&gt; shows"' in made


@pytest.mark.parametrize("text", [HOSTILE, "<!--<script>", "]]>", "\u2028\u2029", "\x00"])
def test_json_cannot_end_the_script_it_stands_in(text):
    made = script_json({text: [text]})
    assert not set("<>&") & set(made)
    assert made.isascii()
    assert json.loads(made) == {text: [text]}


def test_numbers_json_does_not_have_are_null():
    assert script_json([float("nan"), (float("inf"), 1.5), {"a": -float("inf")}]) == '[null,[null,1.5],{"a":null}]'
