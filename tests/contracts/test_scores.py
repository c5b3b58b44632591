"""What every registered score of pruning must do."""

import pytest
import torch

from attar._src.methods.prune.scores import SCORES


@pytest.mark.parametrize("score", [SCORES[name] for name in SCORES], ids=list(SCORES))
def test_a_score_is_a_figure_for_each_element(score):
    for shape in [(3, 4), (2, 3, 3, 3), (0, 3), (1,)]:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        found = score.score(weight)
        assert found.shape == shape
        assert torch.isfinite(found).all()
        assert (score.score(torch.zeros(shape)) == 0).all()
        assert torch.equal(score.score(weight), found)
