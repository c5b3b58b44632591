"""Which CIFAR-10 test images each committed file of the studies predicts right, image by image.

An accuracy over 10,000 images is then checked on some of them: predictions that change show, and cannot cancel out.

    python -m tests.flows.right_predictions     evaluates the files that have no record, or one of other bytes
"""

from pathlib import Path

import numpy as np

import attar
from attar._src.data.registry import load_dataset
from attar._src.measure.accuracy import right_predictions

STUDIES = Path(__file__).parents[2] / "studies"
RECORD = Path(__file__).parent / "right_predictions.npz"
#: Files recorded on all images; the others on the first 2,000.
WHOLE = {"s3-1bit", "s3-2bit", "s3-4bit", "w4", "w4a8", "w8a8"}


def files() -> list[Path]:
    """The files whose predictions are recorded."""
    return sorted([*(STUDIES / "polino2018" / "files").glob("*.attar"), *(STUDIES / "resnet20").glob("*.attar")])


def predicted(session: attar.Session, images: slice) -> np.ndarray:
    """Whether each of these test images is predicted right."""
    test = load_dataset("cifar10", "test")
    x, y = test.x[images], test.y[images]
    batches = [session.run(session.preprocess(x[at : at + 200])) for at in range(0, len(x), 200)]
    return right_predictions(np.concatenate(batches), y)[0]


def recorded(path: Path) -> np.ndarray:
    """What ``predicted`` gave for the first 2,000 or all images when the record was made."""
    with np.load(RECORD) as record:
        return np.unpackbits(record[path.stem], count=10_000 if path.stem in WHOLE else 2_000).astype(bool)


def check(path: Path, examples: int) -> np.ndarray:
    """Evaluate a file on ``examples`` evenly spaced images against its record; return the record."""
    record = recorded(path)
    every = len(record) // examples
    found = predicted(attar.Session(path, threads=1), slice(0, len(record), every))
    # How many threads there are makes no difference; on another processor sums may differ in their last bit.
    assert (found != record[::every]).sum() <= 2
    return record


if __name__ == "__main__":
    known = dict(np.load(RECORD)) if RECORD.exists() else {}
    for each in files():
        session, key = attar.Session(each, threads=1), f"{each.stem}.sha256"
        if str(known.get(key)) != session.artifact.sha256:
            known[each.stem] = np.packbits(predicted(session, slice(0, 10_000 if each.stem in WHOLE else 2_000)))
            known[key] = np.array(session.artifact.sha256)
            print(each.stem, int(np.unpackbits(known[each.stem]).sum()), flush=True)
            np.savez_compressed(RECORD, **known)
