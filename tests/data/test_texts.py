"""Files of texts and labels."""

import gzip
import json

import numpy as np
import pytest

from attar._src.core.errors import DataError
from attar._src.data.texts import read_texts


def written(tmp_path, name, text):
    path = tmp_path / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


ROWS = [{"text": 'a "b', "text_pair": "c", "label": 1}, {"text": "d", "text_pair": "é,f", "label": 0}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", 'text\ttext_pair\tlabel\tother\na "b\tc\t1\tx\nd\té,f\t0\tx\n'),
        ("a.csv", '\ufefflabel,text,text_pair\r\n1,"a ""b",c\r\n0,d,"é,f"\r\n'),
        ("a.jsonl", "\n".join(json.dumps(row) for row in ROWS) + "\n"),
        ("a.jsonl.gz", "\n".join(json.dumps(row) for row in ROWS)),
    ],
)
def test_tables(name, text, tmp_path):
    found = read_texts(written(tmp_path, name, text), "train")
    assert found.texts == ('a "b', "d")
    assert found.pairs == ("c", "é,f")
    assert found.targets({}).tolist() == [1, 0]
    assert found.targets({}).dtype == np.int64
    assert found.name == name


def test_lines_have_no_labels(tmp_path):
    found = read_texts(written(tmp_path, "a-train.txt", "one\r\n\n two\n").replace("train", "{split}"), "train")
    assert found.texts == ("one", "two")
    assert found.targets({}) is None
    assert len(found.subset(1)) == 1


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [(("0", "2"), np.array([0, 2])), (("0.5", "-1"), np.float32([0.5, -1])), (("no", "yes"), np.array([0, 1]))],
)
def test_labels(labels, wanted, tmp_path):
    text = "".join(f"x\t{label}\n" for label in labels)
    found = read_texts(written(tmp_path, "a.tsv", f"text\tlabel\n{text}"), "train").targets({"no": 0, "yes": 1})
    assert found.dtype == wanted.dtype
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.pdf", "x", "a text a line"),
        ("a.txt", "", "it holds no text"),
        ("a.txt", b"\xff\xfe", "in UTF-8"),
        ("a.tsv", "sentence\tlabel\nx\t1\n", "the columns sentence, label and none that is called text"),
        ("a.tsv", "text\tlabel\nx\n", "an example lacks label"),
        ("a.jsonl", '{"text": "x"}\n{', "a text a line"),
        ("a.jsonl", '{"text": 1}', "not a string"),
        ("a.jsonl", "[1]", "no objects"),
    ],
)
def test_what_is_refused(name, text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_texts(written(tmp_path, name, text), "train")


def test_a_missing_file_and_an_unknown_word(tmp_path):
    with pytest.raises(DataError, match="did you mean"):
        read_texts(written(tmp_path, "abc.txt", "x").replace("abc", "abd"), "train")
    found = read_texts(written(tmp_path, "a.tsv", "text\tlabel\nx\tpositiv\n"), "train")
    with pytest.raises(DataError, match=r"positiv.*positive"):
        found.targets({"negative": 0, "positive": 1})
