"""What to search bits and zeros of each layer with: samplers at equal trials, on the public ResNets.

    python studies/search/samplers.py [SAMPLER ...] [--seeds 0 1 2]     adds rows to samplers.json
    python studies/search/samplers.py --carried                         a policy of ResNet-20 on ResNet-56
    python studies/search/samplers.py --draw                            writes samplers.svg and the tables again

A point gives each weight bits of 2, 3, 4, 5, 6 or 8 and zeros in a share of 0, 0.25, 0.5 or 0.75 of it: 40 holes, 24^20
points. Weights at all levels are solved once (`gptq`, 512 training images). A trial predicts the bytes of the file, and
runs the network with these weights on 1,000 other training images; the goal is the fewest bytes at a drop of 0.5 points
there. Every sampler is told of the same first trial, 8 bits without zeros. At the end the smallest file that holds is
packed, decoded and run on 2,000 more training images and, once, on the 10,000 test images.

Rows that are in samplers.json already are left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from rich.console import Console

import attar
from attar._src.artifact.reader import open_artifact
from attar._src.artifact.writer import pack
from attar._src.cli import show
from attar._src.core.registry import load_object
from attar._src.data.preprocessing import parse_preprocessing
from attar._src.data.registry import load_dataset
from attar._src.deploy.build_module import build_module
from attar._src.measure.accuracy import evaluate_accuracy
from attar._src.methods.allocate.judge import Labelled
from attar._src.methods.quantize.ptq.stage import PostTrainingQuantize
from attar._src.model.trace import trace
from attar._src.runtime.preprocess import preprocess
from attar._src.search.goal import Goal
from attar._src.search.layerwise.levels import SolvedLevels
from attar._src.search.layerwise.loop import QuickTrial, try_points
from attar._src.search.layerwise.problem import LayerwiseTask
from attar._src.search.layerwise.quick import QuickTrials
from attar._src.search.samplers.registry import SAMPLERS
from attar._src.search.samplers.sampler import SamplerSpec
from attar._src.work.calibration_inputs import CalibrationInputs
from attar._src.work.compressed_model import CompressedModel, FileInfo

HERE = Path(__file__).parent
RESULTS = HERE / "samplers.json"
GOAL = Goal(max_drop=0.5)
TRIALS, CARRIED_TRIALS = 150, 30
CALIBRATED, MEASURED, JUDGED, CONFIRMED = 512, 64, 1000, 2000
BATCH = 62
#: Row -> its sampler and options. The last draws levels under the budgets of `ddpg`, with a policy that never acts.
ROWS: dict[str, dict[str, Any]] = {
    "integer program": {"name": "integer_program"},
    "ddpg": {"name": "ddpg"},
    "sac": {"name": "sac"},
    "tpe": {"name": "tpe"},
    "nsga2": {"name": "nsga2"},
    "greedy": {"name": "greedy"},
    "random": {"name": "random"},
    "ddpg, blind": {"name": "ddpg", "sees_errors": False},
    "random under budgets": {"name": "ddpg", "warm_up": TRIALS, "updates": 0},
}
#: Rows on ResNet-56: from scratch, and with the policy that the same row and seed learned on ResNet-20.
CARRIED = ("ddpg", "sac", "ddpg, blind")
#: Noise of a policy that has learned; on problems with known errors half the default was better.
LOADED_NOISE = 0.2
COLOURS = ("tab:green", "tab:blue", "tab:purple", "tab:orange", "tab:brown", "tab:gray", "tab:cyan", "black", "tab:red")


class Network:
    """A network at every level, and the examples that judge it."""

    def __init__(self, net: str) -> None:
        root = Path(os.environ["ATTAR_DATA"])
        build = load_object(f"{HERE.parent.parent / 'examples' / 'resnet.py'}:{net}")
        module = build_module(build, {}, root / "weights" / f"cifar10_{net}.safetensors")
        preprocessing = parse_preprocessing("imagenet")
        assert preprocessing is not None
        train = load_dataset("cifar10", "train").subset(CALIBRATED + JUDGED + CONFIRMED, 0)
        assert train.y is not None
        self.confirm = train.x[-CONFIRMED:], train.y[-CONFIRMED:]
        x = torch.from_numpy(preprocess(preprocessing, train.x[:-CONFIRMED]))
        y = torch.from_numpy(train.y[:-CONFIRMED])
        seen = CalibrationInputs(tuple((part,) for part in x[:CALIBRATED].split(64)))
        held = CalibrationInputs(
            tuple((part,) for part in x[CALIBRATED:].split(BATCH)), targets=tuple(y[CALIBRATED:].split(BATCH))
        )
        model = CompressedModel.of(trace(module, (x[:2],)))
        labelled = Labelled(given=True, task="classification", classes=True)
        begun = time.process_time()
        self.solved = SolvedLevels.solve(
            model,
            PostTrainingQuantize(scales="gptq"),
            seen,
            FileInfo(preprocessing, "classification"),
            measured=seen.first(MEASURED, cut=True),
        )
        self.seconds = time.process_time() - begun
        self.trials = QuickTrials(self.solved, held, labelled, GOAL)
        gentle = {each.name: (8, 0.0) for each in self.solved.problem.layers}
        self.first = self.solved.problem.point(gentle)
        self.floating = self._accuracy(pack(model.contents(self.solved.use)), self.confirm)

    def search(self, spec: dict[str, Any], seed: int, count: int) -> tuple[list[QuickTrial], float]:
        """Return the trials of a sampler, and the processor time of all."""
        sampler: SamplerSpec = SAMPLERS_BY_NAME[spec["name"]].model_validate(spec)
        problem, begun = self.solved.problem, time.process_time()
        task = LayerwiseTask(problem.space, GOAL, seed, count, HERE, problem=problem)
        trials = [*try_points(sampler.start(task), self.trials.figures, count, first=[self.first])]
        return trials, time.process_time() - begun

    def row(self, trials: list[QuickTrial]) -> dict[str, Any]:
        """Return the best of some trials, of its decoded file."""
        point, figures = min(trials, key=lambda each: GOAL.score(each.figures))
        data = self.solved.packed(point)
        test = load_dataset("cifar10", "test")
        return {
            "file_bytes": len(data),
            "predicted_bytes": figures.file_bytes,
            "drop": round(figures.drop, 3),
            "confirmed_drop": round(self.floating - self._accuracy(data, self.confirm), 3),
            "test": round(self._accuracy(data, (test.x, test.y)), 2),
            "trials": [[each.figures.file_bytes, round(each.figures.drop, 2)] for each in trials],
            "images": sum(each.figures.examples for each in trials),
            "levels": {name: [*map(float, choice)] for name, choice in self.solved.problem.chosen(point).items()},
        }

    @staticmethod
    def _accuracy(data: bytes, of: tuple[Any, Any]) -> float:
        return 100 * evaluate_accuracy(attar.Session(open_artifact(data), threads=1), *of).accuracy


SAMPLERS_BY_NAME = dict(zip(SAMPLERS, SAMPLERS.values(), strict=True))


def best_so_far(row: dict[str, Any]) -> list[float]:
    """Return the fewest bytes that held after each trial."""
    held = [size if drop <= GOAL.max_drop else np.inf for size, drop in row["trials"]]
    return [float(each) for each in np.minimum.accumulate(held)]


def measure(names: list[str], seeds: list[int], *, carried: bool) -> None:
    """Measure what is missing and add it to the results."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    known = {(each["net"], each["row"], each["seed"]) for each in rows}
    net, count = ("resnet56", CARRIED_TRIALS) if carried else ("resnet20", TRIALS)
    wanted = []
    for seed in seeds:
        for name in names:
            policy = f"policies/{name.replace(', ', '-')}-{seed}.safetensors"
            if not carried:
                wanted.append((name, seed, ROWS[name] | ({"save": policy} if name in CARRIED else {})))
                continue
            wanted.append((name, seed, ROWS[name]))
            if (HERE / policy).exists():
                quieter = {"noise": LOADED_NOISE} if ROWS[name]["name"] == "ddpg" else {}
                wanted.append((f"{name}, carried", seed, ROWS[name] | {"load": policy} | quieter))
    wanted = [each for each in wanted if (net, each[0], each[1]) not in known]
    network = Network(net) if wanted else None
    for name, seed, spec in wanted:
        assert network is not None
        trials, seconds = network.search(spec, seed, count)
        rows.append(
            {"net": net, "row": name, "seed": seed}
            | network.row(trials)
            | {"seconds": round(seconds, 1), "solving_seconds": round(network.seconds, 1)}
        )
        RESULTS.write_text(json.dumps(rows) + "\n")
        show.say("measured", json.dumps({k: v for k, v in rows[-1].items() if k not in ("trials", "levels")}))
    draw(rows)


def draw(rows: list[dict[str, Any]]) -> None:
    """Write samplers.svg and print the tables."""
    figure, plots = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for net, plot, count in (("resnet20", plots[0], TRIALS), ("resnet56", plots[1], CARRIED_TRIALS)):
        table = [
            f"| {net} | seeds | best after {count // 5}, KB | {2 * count // 5} | {count} | file, bytes | "
            "drop on 2,000 more | test, % | processor time, s |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        own = [each for each in rows if each["net"] == net]
        names = sorted({each["row"] for each in own}, key=_order)
        for name in names:
            group = [each for each in own if each["row"] == name]
            curves = np.array([best_so_far(each) for each in group]) / 1000
            at = [curves[:, min(place, curves.shape[1]) - 1] for place in (count // 5, 2 * count // 5, count)]
            spans = " | ".join(f"{each.mean():.1f} ({each.min():.1f} to {each.max():.1f})" for each in at)
            means = {
                key: np.mean([each[key] for each in group])
                for key in ("file_bytes", "confirmed_drop", "test", "seconds")
            }
            table.append(
                f"| {name} | {len(group)} | {spans} | {means['file_bytes']:,.0f} | {means['confirmed_drop']:.2f} | "
                f"{means['test']:.2f} | {means['seconds']:.0f} |"
            )
            base = name.removesuffix(", carried")
            scratch = net == "resnet56" and base == name
            style = {"color": COLOURS[[*ROWS].index(base)], "linestyle": "--" if scratch else "-"}
            steps = np.arange(1, curves.shape[1] + 1)
            plot.plot(steps, curves.mean(0), label=name, **style)
            plot.fill_between(steps, curves.min(0), curves.max(0), color=style["color"], alpha=0.12, linewidth=0)
        plot.set(xlabel="trials", ylabel="KB, the smallest that holds 0.5 points", title=net)
        if names:
            plot.legend(fontsize=7)
        Console(soft_wrap=True).print("\n".join([*table, ""]), markup=False)
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "attar"
    figure.savefig(HERE / "samplers.svg", metadata={"Date": None})


def _order(name: str) -> tuple[int, str]:
    return [*ROWS].index(name.removesuffix(", carried")), name


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="SAMPLER", help=f"of: {', '.join(ROWS)}; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--carried", action="store_true", help="on ResNet-56, with policies of ResNet-20 and without")
    parser.add_argument("--draw", action="store_true", help="only draw what samplers.json has")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", attar.AttarWarning)
    names = given.rows or [*(CARRIED if given.carried else ROWS)]
    if given.draw:
        draw(json.loads(RESULTS.read_text()))
    else:
        measure(names, given.seeds, carried=given.carried)


if __name__ == "__main__":
    main()
