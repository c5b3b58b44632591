import pickle

import pytest
import torch
from safetensors.torch import save_file
from tests.search.layerwise.additive import additive, figures
from tests.search.samplers.test_layerwise_samplers import GOAL, searched

from attar._src.core.errors import AttarError, SpecError
from attar._src.search.layerwise.problem import LayerwiseTask
from attar._src.search.samplers.learned.policy_file import load_policy
from attar._src.search.samplers.learned.specs import Ddpg, Sac


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "ddpg.safetensors"
    searched(Ddpg(warm_up=2, updates=5, save=str(path)), additive(), 8)
    return path


def start(spec, problem, count=8):
    return spec.start(LayerwiseTask(problem.space, GOAL, 3, count, problem=problem))


def test_a_policy_goes_on_on_another_network(saved):
    other = additive(seed=5, layers=9)
    sampler = start(Ddpg(noise=0.0, load=str(saved)), other)
    asked = sampler.ask(0)
    fresh = start(Ddpg(noise=0.0, warm_up=0), other).ask(0)
    # The policy acts at once, and what it learned is another one than it began with.
    first = {key: value for key, value in sampler.model.policy.state_dict().items() if key.startswith("actor.")}
    kept = load_policy(saved, sampler._about(), sampler.model.policy.state_dict())
    assert all(torch.equal(value, kept[key]) for key, value in first.items())
    sampler.tell(0, asked, figures(other, asked))
    other.space.check(sampler.ask(1))
    other.space.check(fresh)


def test_a_policy_of_another_kind_is_refused(saved, tmp_path):
    with pytest.raises(SpecError, match="sampler 'ddpg', here 'sac'"):
        start(Sac(load=str(saved)), additive())
    with pytest.raises(SpecError, match="sees_errors True, here False"):
        start(Ddpg(load=str(saved), sees_errors=False), additive())
    # What a search that goes on begins with would be what it saved.
    with pytest.raises(ValueError, match="save to another file"):
        Ddpg(load="./p.safetensors", save="p.safetensors")
    with pytest.raises(SpecError, match=r"policy .*nothing\.safetensors"):
        start(Ddpg(load=str(tmp_path / "nothing.safetensors")), additive())


def test_what_is_no_policy_is_refused_and_never_unpickled(tmp_path):
    path = tmp_path / "policy.safetensors"
    ran = []

    class Evil:
        def __reduce__(self):
            return (ran.append, (1,))

    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(AttarError, match="is no policy"):
        start(Ddpg(load=str(path)), additive())
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(AttarError, match="is no policy of a search"):
        start(Ddpg(load=str(path)), additive())
    assert not ran
