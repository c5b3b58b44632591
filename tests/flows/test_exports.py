"""What a run spends beside training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

import attar
from attar._src.model.export.known import KNOWN

_EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.filterwarnings("ignore:.*bits per weight, above the budget of 7")
@pytest.mark.parametrize(("granularity", "variants"), [("channel", 1), ("bucket:64", 2)])
def test_a_model_is_exported_once_for_each_structural_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granularity: str, variants: int
) -> None:
    KNOWN.clear()
    sizes: Counter[int] = Counter()
    export = torch.onnx.export

    def counted(graph, *args, **options):
        sizes[graph.state_dict["head.bias"].numel() + graph.state_dict["head.weight"].numel()] += 1
        return export(graph, *args, **options)

    monkeypatch.setattr(torch.onnx, "export", counted)

    def net(width: int) -> dict[str, object]:
        return {"factory": f"{_EXAMPLES / 'digits.py'}:DigitNet", "arguments": {"width": width}}

    compress = {"stage": "compress", "teacher": "teacher", "size": 7, "epochs": 1, "batch": 719}
    recipe = attar.Recipe.model_validate(
        {
            "data": "digits",
            "layout": "contiguous",
            "models": {
                "teacher": {"source": net(8), "stages": [{"stage": "train", "epochs": 1, "batch": 719}]},
                "student": {"source": net(4), "stages": [compress | {"granularity": granularity}]},
            },
        }
    )
    run = attar.run(recipe, tmp_path / "run")
    assert run.page is not None
    # Batch-norms cannot be folded into weights whose buckets cross channels: they stay, as two vectors.
    assert sizes == {10 + 10 * 8 * 8: 1, 10 + 10 * 4 * 8: variants}
