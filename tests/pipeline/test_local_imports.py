from attar._src.pipeline.local_imports import local_imports


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path = path.with_name(f"{path.name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(folder, path="net.py"):
    return {found.relative_to(folder).as_posix() for found in local_imports(folder / path)}


def test_what_a_file_imports_from_beside_it_is_found_by_way_of_others_too(tmp_path):
    write(
        tmp_path,
        net="import torch\nimport blocks\ndef f():\n    from parts.conv import Conv",
        blocks="from shapes import square",
        shapes="import net",
        parts__conv="from . import base\nfrom .deep import thing",
        parts__base="",
        parts__deep="",
        unused="",
    )
    (tmp_path / "parts" / "__init__.py").write_text("")
    expected = {"blocks.py", "shapes.py", "parts/__init__.py", "parts/conv.py", "parts/base.py", "parts/deep.py"}
    assert names(tmp_path) == expected


def test_a_file_that_is_no_python_or_not_there_has_none(tmp_path):
    write(tmp_path, net="import broken\n", broken="def (")
    assert names(tmp_path) == {"broken.py"}
    assert names(tmp_path, "broken.py") == set()
    assert names(tmp_path, "missing.py") == set()
