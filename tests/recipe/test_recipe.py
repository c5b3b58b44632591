"""Recipes: what is read, what is put in its place, what is refused and in which words."""

import json

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from attar._src.core.errors import SpecError, UnknownName
from attar._src.methods.presets import Distill, QuantizeStage, Train
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.recipe.recipe import Recipe, read_recipe
from attar._src.recipe.yaml_text import format_yaml

TEXT = """
data: digits
seeds: [0, 1]
models:
  student:
    source: nets.py:net
    stages:
      - {stage: distill, teacher: teacher, epochs: 2, temperature: {start: 8, stop: 1}}
      - stage: finetune
        epochs: 2
        objective:
          - {name: kl, teacher: teacher, weight: 0.9}
          - {name: cross_entropy, weight: 0.1}
        constraints: [{name: prune, sparsity: 0.6}, {name: quantize, bits: 4, activations: 8}]
  teacher:
    source: {factory: nets.py:net, arguments: {width: 32}}
    stages:
      - {stage: train, epochs: 2, optimizer: {name: sgd, lr: 5e-2}}
      - {stage: quantize, bits: 8}
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(TEXT)
    return file


def refusal(path, *settings):
    with pytest.raises(SpecError) as caught:
        read_recipe(path, settings)
    return str(caught.value)


def test_a_recipe_is_read_and_teachers_come_first(path):
    recipe = read_recipe(path)
    assert recipe.order == ("teacher", "student")
    assert recipe.teachers == ("teacher",)
    assert recipe.reference == "teacher"
    assert recipe.folder == path.parent
    assert recipe.models["student"].source.factory == "nets.py:net"
    assert isinstance(recipe.models["teacher"].stages[1], PostTrainingQuantize)


def test_axes_by_name_may_be_lists(path):
    assert read_recipe(path, ["dynamic={x: [0, 1], state: [1]}"]).dynamic == {"x": (0, 1), "state": (1,)}


def test_auto_activations_are_no_part_of_a_recipe(path):
    path.write_text(TEXT.replace("{stage: quantize, bits: 8}", "{stage: quantize, bits: 8, activations: auto}"))
    said = refusal(path)
    assert "models.teacher.stages" in said
    assert "should not depend on the speed of a machine" in said
    assert "attar quantize --activations auto measures once" in said
    assert "\n" not in said


def test_only_some_models_bring_their_teachers(path):
    recipe = read_recipe(path, ["baseline=student", "teacher_cache={teacher: {variants: 2}}", "data.augment=[flip]"])
    assert tuple(recipe.only("student").models) == ("student", "teacher")
    assert recipe.only("student").reference == "student"
    alone = recipe.only("teacher")
    assert tuple(alone.models) == ("teacher",)
    assert alone.reference == "teacher"
    assert tuple(alone.teacher_cache) == ("teacher",)
    assert alone.folder == path.parent
    assert Recipe(**alone.described()).described() == alone.described()
    with pytest.raises(UnknownName, match="no model named 'studnet'; did you mean 'student'"):
        recipe.only("studnet")
    with pytest.raises(SpecError, match="give at least one model of student, teacher"):
        recipe.only()


def test_quantize_trains_where_it_has_epochs(path):
    recipe = read_recipe(path, ["models.teacher.stages.1.epochs=1"])
    assert isinstance(recipe.models["teacher"].stages[1], QuantizeStage)


def test_exponents_are_numbers_as_people_write_them(path):
    assert read_recipe(path).models["teacher"].stages[0].optimizer.lr == 0.05


def test_a_recipe_written_out_is_the_same_recipe(path):
    described = read_recipe(path).described()
    again = YAML(typ="safe", pure=True).load(format_yaml(json.loads(json.dumps(described))))
    assert Recipe(**again).described() == described


def test_settings_take_the_place_of_what_is_there(path):
    settings = [
        "seeds=[7]",
        "data.validation=0.2",
        "models.student.source.arguments={width: 8}",
        "models.student.stages.1.constraints.0.sparsity=0.5",
        "precision=bf16-mixed",
    ]
    recipe = read_recipe(path, settings)
    assert recipe.seeds == (7,)
    assert (recipe.data.source, recipe.data.validation) == ("digits", 0.2)
    assert recipe.models["student"].source.arguments == {"width": 8}
    assert recipe.models["student"].stages[1].constraints[0].sparsity == 0.5
    assert recipe.precision == "bf16-mixed"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("models.studnt.stages.0.epochs=3", "no key named 'studnt'; did you mean 'student'?"),
        ("models.student.stages.7.epochs=3", "'7' is no index of a list of 2; use 0 to 1"),
        ("models.student.stages.0.epochs.x=3", "2 has no key 'x'"),
        ("epochs", "write key.path=value"),
        ("seeds=[", "the value is not YAML"),
        ("precison=auto", "recipe: no key named 'precison'; did you mean 'precision'"),
        ("data.validatoin=2", "recipe.data: no key named 'validatoin'; did you mean 'validation'"),
        ("data=digit", "recipe.data.source: no data set named 'digit'; did you mean 'digits'"),
        ("metric=acuracy", "recipe.metric: no metric named 'acuracy'; did you mean 'accuracy' or 'binary_accuracy'?"),
        ("seeds=[]", "recipe.seeds: [] should be one or more different numbers"),
        ("seeds=[1, 1]", "recipe.seeds: [1, 1] should be one or more different"),
        ("seeds=[-1]", "recipe.seeds.0: Input should be greater than or equal to 0 (got -1)"),
        ("dynamic=[1]", "recipe.dynamic: [1] should include 0"),
        ("devices=0", "recipe.devices"),
        ("baseline=techer", "recipe.baseline: no model named 'techer'; did you mean 'teacher'?"),
        ("teacher_cache={teach: {}}", "recipe.teacher_cache: no model named 'teach'"),
        ("models={}", "recipe.models: the recipe has no model"),
        ("models={a/b: {source: x.py:y}}", "recipe.models.a/b: a name becomes a file name"),
        ("models.student.source={}", "recipe.models.student.source: give either factory or file (got neither)"),
        ("models.student.stages.0.epochs=0", "recipe.models.student.stages.0.epochs: Input should be greater"),
        ("models.student.stages.0.epochs=x", "recipe.models.student.stages.0.epochs: Input should be a valid integer"),
        ("models.student.stages.0.teacher=tutor", "recipe.models.student.stages.0.teacher: no model named 'tutor'"),
        ("models.student.stages.0={stage: trian}", "recipe.models.student.stages.0: no name named 'trian'; did you"),
        (
            "models.student.stages.0={epochs: 2}",
            "recipe.models.student.stages.0: the key stage is missing; add one, as in stage: train",
        ),
        ("models.student.stages.1.objective.0.name=kll", "recipe.models.student.stages.1.objective.0: no name named"),
        ("models.teacher.stages.0.optimizer.momentun=1", "recipe.models.teacher.stages.0.optimizer: no key named"),
        (
            "models.teacher.stages=[{stage: quantize}, {stage: quantize}]",
            "recipe.models.teacher.stages.1: stage 0 quantizes the same layers already; name others with layers",
        ),
        (
            "models.teacher.stages=[{stage: quantize, bits: {max_bytes: 760}}, {stage: train, epochs: 1}]",
            "recipe.models.teacher.stages.0: train behind a target would change the file whose bits were chosen",
        ),
        (
            "models.teacher.stages=[{stage: quantize, bits: {size: 3}}, {stage: quantize, layers: [a]}]",
            "recipe.models.teacher.stages.0: quantize behind a target would change the file",
        ),
        (
            "models.teacher.stages=[{stage: distill, teacher: student, epochs: 1}]",
            "models teach each other in a circle: student <- teacher <- student",
        ),
        (
            "models.student.stages.0.teacher=student",
            "models teach each other in a circle: student <- student",
        ),
        (
            "models.teacher.source={file: t.attar}",
            "recipe.models.teacher.stages: t.attar is a file, which cannot be trained",
        ),
        ("models.teacher={source: {file: t.attar, weights: w}}", "recipe.models.teacher.source.weights: a file takes"),
        ("models.student.stages.0.stage=nets.py:Stage", "there is no file"),
        (
            "teacher_cache={teacher: {file: b}}",
            "recipe.teacher_cache.teacher.file: 'teacher' is trained and differs between",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_words(path, setting, message):
    assert message in refusal(path, setting)


def test_a_bank_s_file_keeps_one_teacher(path):
    given = "teacher_cache={teacher: {file: b}}"
    assert "remove file, or give one seed" in refusal(path, given)
    assert read_recipe(path, [given, "seeds=[1]"]).teacher_cache["teacher"].file == "b"
    assert read_recipe(path, [given, "models.teacher.stages=[{stage: quantize}]"]).seeds == (
        0,
        1,
    )  # one under all seeds
    both = "teacher_cache={teacher: {file: x/b}, student: {file: x/./b}}"
    assert "recipe.teacher_cache.student.file: x/./b is also the cache of 'teacher'" in refusal(path, both, "seeds=[0]")
    assert (
        read_recipe(path, ["teacher_cache={teacher: {file: b}, student: {file: c}}", "seeds=[0]"])
        .teacher_cache["student"]
        .file
        == "c"
    )


def test_mappings_may_be_merged_and_merged_again(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "data: digits\nmodels:\n"
        "  one: &one {source: &net {factory: 'nets.py:build'}, stages: [&stage {stage: train, epochs: 1}]}\n"
        "  two: &two {<<: *one, stages: [{<<: *stage, epochs: 2}]}\n"
        "  three: {<<: *two, licence: mine}\n"
    )
    (tmp_path / "nets.py").write_text("from torch import nn\n\ndef build():\n    return nn.Linear(2, 2)\n")
    models = read_recipe(tmp_path / "r.yaml").models
    assert [models[name].stages[0].epochs for name in ("one", "two", "three")] == [1, 2, 2]
    assert models["three"].licence == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- a", "holds a list"),
        ("data: digits\ndata: mnist\n", "line 2, column 1: the key 'data' is given twice"),
        ("data: digits\n", "recipe.models: Field required"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    assert message in refusal(tmp_path / "r.yaml")


def test_a_recipe_that_is_not_there_is_refused(tmp_path):
    assert "there is no recipe" in refusal(tmp_path / "r.yaml")


def test_python_objects_stand_where_words_do():
    net = nn.Linear(3, 2)
    recipe = Recipe(
        data={"train": (np.zeros((4, 3), np.float32), np.zeros(4, np.int64)), "test": [np.zeros((4, 3), np.float32)]},
        models={"net": {"source": net, "stages": [Train(epochs=1, loss=nn.CrossEntropyLoss())]}},
        metric=lambda outputs, targets: 0.0,
    )
    assert recipe.models["net"].source.factory is net
    found = set(recipe.objects())
    assert {"models.net.source.factory", "models.net.stages.0.loss.name", "metric"} <= found
    described = json.loads(json.dumps(recipe.described()))
    assert described["models"]["net"]["source"]["factory"]["object"] == "torch.nn.modules.linear.Linear"
    other = nn.Linear(3, 2)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other.bias += 1
    changed = Recipe(data="digits", models={"net": {"source": other}}).described()
    assert changed["models"]["net"]["source"]["factory"] != described["models"]["net"]["source"]["factory"]


def test_a_recipe_from_a_file_has_no_objects(path):
    assert read_recipe(path).objects() == ()


def test_stages_may_be_objects_or_a_user_s_own(tmp_path):
    (tmp_path / "own.py").write_text(
        "from attar._src.methods.presets import Train\nclass Mine(Train):\n    stage: str = 'mine'\n    more: int = 1\n"
    )
    (tmp_path / "r.yaml").write_text(
        "data: digits\nmodels: {net: {source: own.py:net, stages: [{stage: 'own.py:Mine', epochs: 1, more: 2}]}}"
    )
    stage = read_recipe(tmp_path / "r.yaml").models["net"].stages[0]
    assert (type(stage).__name__, stage.more) == ("Mine", 2)
    assert "mor" in refusal(tmp_path / "r.yaml", "models.net.stages.0.mor=1")
    given = Distill(teacher="a", epochs=1)
    recipe = Recipe(data="digits", models={"a": {"source": "x:y"}, "b": {"source": "x:y", "stages": [given]}})
    assert recipe.models["b"].stages[0] is given


def test_the_schema_describes_a_recipe(path):
    schema = Recipe.schema()
    assert {"data", "models"} <= set(schema["required"])
    assert set(read_recipe(path).described()) == set(schema["properties"])
    known = json.dumps(schema)
    assert all(f'"{word}"' in known for word in ("distill", "prune", "finetune", "kl", "sgd", "crop", "auto"))
    follow(schema, schema, read_recipe(path).described())


def follow(schema, part, value):
    """Every object of the value has an alternative in the schema whose properties it has; references resolve."""
    while "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    options = part.get("anyOf", part.get("oneOf", [part]))
    if options != [part]:
        errors = []
        for option in options:
            try:
                return follow(schema, option, value)
            except AssertionError as error:
                errors.append(error)
        raise AssertionError(errors)
    if isinstance(value, dict) and "properties" in part:
        assert set(value) <= set(part["properties"])
        for key, item in value.items():
            follow(schema, part["properties"][key], item)
    elif isinstance(value, dict):
        assert part.get("type", "object") == "object"
        inner = part.get("additionalProperties")
        for item in value.values() if isinstance(inner, dict) else []:
            follow(schema, inner, item)
    elif isinstance(value, list):
        assert part.get("type") == "array"
        for item in value:
            follow(schema, part.get("items", {}), item)
    else:
        kinds = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
        allowed = {kinds[type(value)], "number" if isinstance(value, int) else kinds[type(value)]}
        assert part.get("type", kinds[type(value)]) in allowed
        assert part.get("const", value) == value
    return None
