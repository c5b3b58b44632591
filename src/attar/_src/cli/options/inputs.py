"""Options of the commands that take a module and data: how the module is called and its inputs are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Class or function of the module, file.py:name or package.module:name; a .pt2 file; or hf:FOLDER, a model "
        "of transformers.",
    ),
]
Data = Annotated[
    str,
    typer.Option("--data", "-d", help="Real inputs: digits, mnist, cifar10, npz:PATH, text:PATH or file.py:factory."),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        "-w",
        help="Weights: .safetensors, .npz, a state dict or checkpoint (opened weights-only; x.pt:ema chooses an "
        "entry), .attar. Without, those that the function gives its module.",
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="Keyword argument of the factory; repeatable."),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocessing",
        "-p",
        metavar="NAME|JSON",
        help="From raw examples to inputs; that of the data set by default.",
    ),
]
DynamicAxes = Annotated[
    list[str] | None, typer.Option(metavar="AXIS", help="Input axis of variable length, as in attar quantize.")
]
FixedBatch = Annotated[int | None, typer.Option(min=1, help="Batch size of a module that cannot vary it.")]
TokenizerFolder = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Tokenizer of text:PATH; that of hf:FOLDER by default.")
]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Tokens of the longest text.")]
