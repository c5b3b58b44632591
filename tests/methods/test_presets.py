import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from tests.methods.toys import ModuleTeacher, context, fresh, net, same

from attar._src.core.errors import SpecError
from attar._src.core.scheme import PerBucket, PerGroup, PerTensor
from attar._src.core.spec import explain
from attar._src.methods.finetune import Finetune
from attar._src.methods.presets import Distill, PruneStage, QuantizeStage, Train
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.methods.stages import STAGES, StageChoice
from attar._src.train.schedule import Schedule

STAGE = TypeAdapter(StageChoice)
PLAN = {"epochs": 2, "batch": 32, "optimizer": {"name": "adamw", "lr": 0.01}}
EXPANDED = [
    ({"stage": "train"}, {"objective": ["cross_entropy"]}),
    (
        {"stage": "train", "loss": {"name": "cross_entropy", "label_smoothing": 0.1}, "constraints": ["quantize"]},
        {"objective": [{"name": "cross_entropy", "label_smoothing": 0.1}], "constraints": ["quantize"]},
    ),
    (
        {"stage": "distill", "teacher": "big", "temperature": 2, "alpha": 0.7, "beta": 0.3},
        {
            "objective": [
                {"name": "kl", "teacher": "big", "temperature": 2, "weight": 0.7},
                {"name": "cross_entropy", "weight": 0.3},
            ]
        },
    ),
    (
        {"stage": "distill", "teacher": {"a": 1, "b": 2}, "beta": 0, "loss": "soft_cross_entropy"},
        {"objective": [{"name": "soft_cross_entropy", "teacher": {"a": 1, "b": 2}, "weight": 0.9}]},
    ),
    (
        {"stage": "distill", "teacher": "big", "alpha": {"start": 1, "stop": 0}, "constraints": ["quantize"]},
        {
            "objective": [
                {"name": "kl", "teacher": "big", "weight": {"start": 1, "stop": 0}},
                {"name": "cross_entropy", "weight": 0.1},
            ],
            "constraints": ["quantize"],
        },
    ),
    (
        {"stage": "compress", "teacher": "big", "size": 2.0, "floats": 8, "granularity": "tensor"},
        {
            "objective": [
                {"name": "kl", "teacher": "big", "weight": 0.9},
                {"name": "cross_entropy", "weight": 0.1},
                {"name": "rate", "file": 1.98},
            ],
            "constraints": [
                {"name": "lsq", "bits": 4, "granularity": "tensor"},
                {"name": "low_precision", "bits": 8},
            ],
            "norm_batches": 50,
        },
    ),
    (
        {
            "stage": "compress",
            "teacher": "big",
            "size": 2.0,
            "beta": 0,
            "through": [8, 6],
            "offset": True,
            "scale_bits": 16,
            "terms": ["damping", {"name": "hint", "teacher": "big", "layers": {"a": "b"}}],
            "norm_batches": 0,
        },
        {
            "objective": [
                {"name": "kl", "teacher": "big", "weight": 0.9},
                {"name": "rate", "file": 1.98},
                "damping",
                {"name": "hint", "teacher": "big", "layers": {"a": "b"}},
            ],
            "constraints": [
                {"name": "lsq", "bits": 4, "through": [8, 6], "offset": True},
                {"name": "low_precision", "scale_bits": 16},
            ],
        },
    ),
    (
        {"stage": "prune", "sparsity": 0.5, "scope": "global", "overrides": {"head": 0.2}, "constraints": ["quantize"]},
        {
            "constraints": [
                {"name": "prune", "sparsity": 0.5, "scope": "global", "overrides": {"head": 0.2}},
                "quantize",
            ]
        },
    ),
    (
        {"stage": "quantize", "bits": 3, "activations": 8, "objective": {"name": "kl", "teacher": "big"}},
        {
            "objective": [{"name": "kl", "teacher": "big"}],
            "constraints": [{"name": "quantize", "bits": 3, "activations": 8}],
        },
    ),
]


@pytest.mark.parametrize(("fields", "expected"), EXPANDED, ids=lambda each: str(each.get("stage", ""))[:9])
def test_a_preset_is_a_finetune(fields, expected):
    stage = STAGE.validate_python(fields | PLAN)
    same = Finetune(**expected, **PLAN)
    assert [each.describe() for each in stage.loss_terms()] == [each.describe() for each in same.loss_terms()]
    assert stage.attached_rules() == same.attached_rules()
    assert (stage.teachers(), stage.required()) == (same.teachers(), same.required())


@pytest.mark.parametrize("fields", [fields for fields, _ in EXPANDED])
def test_its_description_is_json_both_ways(fields):
    stage = STAGE.validate_python(fields | PLAN)
    assert STAGE.validate_python(stage.model_dump(mode="json")) == stage
    assert STAGE.validate_python(stage.describe()) == stage
    assert STAGE.validate_python(stage) is stage


def test_a_record_says_what_earlier_versions_took_by_default_and_no_more_than_was_asked():
    fields = {"stage": "compress", "teacher": "big", "size": 2.0, "epochs": 1}
    assert STAGE.validate_python(fields).describe() == fields | {"norm_batches": 50, "clip": 2.0}
    assert STAGE.validate_python(fields | {"clip": None}).describe() == fields | {"norm_batches": 50, "clip": None}
    for count in (0, 20, 50):
        stage = STAGE.validate_python(fields | {"norm_batches": count})
        assert stage.describe() == fields | {"norm_batches": count, "clip": 2.0}
        assert stage.norm_batches == count


def test_grids_that_do_not_become_narrower_are_refused_before_anything_is_done():
    with pytest.raises(ValidationError) as caught:
        STAGE.validate_python({"stage": "compress", "teacher": "big", "size": 2.0, "through": [4], "epochs": 1})
    assert "through [4] must be descending and above bits 4" in explain(caught.value, where="stage")


def test_a_preset_trains_as_its_finetune_does(tmp_path):
    teacher = ModuleTeacher(net(1))
    stage = STAGE.validate_python({"stage": "distill", "teacher": "big", "constraints": ["quantize"], **PLAN})
    one, other = fresh(0), fresh(1)
    torch.set_num_threads(1)
    stage.run(one, context(tmp_path / "0", teachers={"big": teacher}))
    plain = Finetune(objective=stage.loss_terms(), constraints=stage.attached_rules(), **PLAN)
    plain.run(other, context(tmp_path / "1", teachers={"big": teacher}))
    assert same(one.module.state_dict(), other.module.state_dict())
    assert one.record == [stage.describe()]
    assert one.record[0]["stage"] == "distill"
    again = fresh(0)
    stage.attach(again)
    assert [type(c) for c in again.constraints] == [type(c) for c in one.constraints]


def test_quantize_trains_where_it_has_epochs():
    assert type(STAGE.validate_python({"stage": "quantize", "bits": 3})) is PostTrainingQuantize
    assert type(STAGE.validate_python({"stage": "quantize", "bits": 3, "epochs": 1})) is QuantizeStage
    for stage in (PostTrainingQuantize(bits=3), QuantizeStage(bits=3, epochs=1)):
        assert STAGE.validate_python(stage) is stage


@pytest.mark.parametrize("key", ["epoch", "Epochs", "epocs", "num_epochs"])
def test_a_misspelling_of_epochs_is_taken_for_one(key):
    with pytest.raises(ValidationError) as caught:
        STAGE.validate_python({"stage": "quantize", key: 3})
    assert "did you mean 'epochs'" in explain(caught.value, where="stage")


@pytest.mark.parametrize("field", [{"batch": 32}, {"clip": 1.0}, {"freeze": 0.5}, {"objective": "cross_entropy"}])
def test_a_field_of_training_asks_for_epochs(field):
    with pytest.raises(ValidationError) as caught:
        STAGE.validate_python({"stage": "quantize"} | field)
    assert "epochs: Field required" in explain(caught.value, where="stage")


@pytest.mark.parametrize("epochs", [{}, {"epochs": 1}])
def test_granularities_in_words(epochs):
    def read(given):
        return STAGE.validate_python({"stage": "quantize", "granularity": given, **epochs}).granularity

    assert [read(word) for word in ("channel", "tensor", "group:64", "bucket:256", None)] == [
        None,
        PerTensor(),
        PerGroup(size=64),
        PerBucket(size=256),
        None,
    ]
    assert read({"kind": "group", "size": 5}) == read(PerGroup(size=5)) == PerGroup(size=5)
    for wrong in ("rows", "group", "group:", "group:0", "group:x", "tensor:4"):
        with pytest.raises(ValidationError, match="as in group:64"):
            read(wrong)


@pytest.mark.parametrize(
    ("field", "ends"),
    [("temperature", (4.0, 0.0)), ("temperature", (-1.0, 2.0)), ("alpha", (0.9, -0.1)), ("beta", (-0.1, 1.0))],
)
def test_schedules_stay_where_the_number_may_be(field, ends):
    with pytest.raises(ValidationError, match="start and stop must be"):
        Distill(teacher="big", epochs=1, **{field: {"start": ends[0], "stop": ends[1]}})


def test_the_stages_that_train_are_told_apart():
    assert {kind.model_fields["stage"].default for kind in STAGES} == {
        "train",
        "distill",
        "prune",
        "prune_channels",
        "prune_layers",
        "prune_weights",
        "quantize",
        "reconstruct",
        "compress",
        "finetune",
    }
    assert all(len(kind.__doc__) > 30 for kind in STAGES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage": "distil", "epochs": 1}, "no name named 'distil'; did you mean 'distill'"),
        ({"stage": "distill", "epochs": 1}, "teacher: Field required"),
        ({"stage": "train", "epochs": 1, "los": "kl"}, "no key named 'los'; did you mean 'loss'"),
        ({"stage": "prune", "epochs": 1}, "one of the two: sparsity or threshold"),
        ({"stage": "quantize", "epochs": 1, "observer": "mse"}, "no key named 'observer'"),
        ({"stage": "finetune", "epochs": 1, "objective": "kll"}, "no name named 'kll'; did you mean 'kl'"),
        ({"stage": "finetune", "epochs": 1, "constraints": ["prun"]}, "no name named 'prun'; did you mean 'prune'"),
        ({"stage": "distill", "epochs": 1, "teacher": "t", "alpha": 0, "beta": 0}, "no loss is left"),
        ({"stage": "compress", "epochs": 1, "teacher": "t", "size": 2, "alpha": 0, "beta": 0}, "no loss is left"),
        (
            {"stage": "distill", "epochs": 1, "teacher": "t", "hard": {"name": "cross_entropy", "weight": 0.5}},
            "beta is the weight of the hard loss",
        ),
    ],
)
def test_what_cannot_work_is_said_with_the_nearest(fields, message):
    with pytest.raises(ValidationError) as caught:
        STAGE.validate_python(fields)
    assert message in explain(caught.value, where="stage")


def test_presets_are_specs_of_python_too():
    stage = Distill(teacher="big", epochs=3, beta=Schedule(start=0.0, stop=0.5))
    assert stage.loss_terms()[1].weight == Schedule(start=0.0, stop=0.5)
    assert Train(epochs=1, loss=torch.nn.L1Loss).loss_terms()[0].name is torch.nn.L1Loss
    with pytest.raises(SpecError, match="needs a teacher"):
        Distill(teacher=(), epochs=1).teachers()
    assert PruneStage(sparsity=0.5, epochs=1).attached_rules()[0].sparsity == 0.5
