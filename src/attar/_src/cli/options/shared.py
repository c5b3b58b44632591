"""Options that several commands have: a data class of them is one parameter of a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

import typer
from typer.models import OptionInfo

from attar._src.cli.options.calibration import ChosenInputs, DataChoice, call_with_data
from attar._src.cli.options.texts import parse_arguments, parse_axes
from attar._src.measure.class_layout import IGNORE_INDEX
from attar._src.report.wording import plural

Shared = TypeVar("Shared", bound="ModuleOptions")


@dataclass(frozen=True)
class ModuleOptions:
    """Options of commands that take a module and data.

    Attributes:
        panel: under which ``--help`` lists them.
    """

    panel: ClassVar[str] = "Module and data"

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Class or function of the module, file.py:name or package.module:name; a .pt2 file; or hf:FOLDER, a "
            "model of transformers.",
        ),
    ]
    data: Annotated[
        str,
        typer.Option(
            "--data", "-d", help="Real inputs: digits, mnist, cifar10, npz:PATH, text:PATH or file.py:factory."
        ),
    ]
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            "-w",
            help="Weights: .safetensors, .npz, a state dict or checkpoint (opened weights-only; x.pt:ema chooses an "
            "entry), .attar. Without, those that the function gives its module.",
        ),
    ] = None
    arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--arg", metavar="NAME=VALUE", help="Keyword argument of the factory, JSON or a word; repeatable."
        ),
    ] = None
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocessing",
            "-p",
            metavar="NAME|JSON",
            help="From raw examples to inputs: none, unit, digits, mnist, cifar10, imagenet, a JSON object or "
            "file.py:name; that of the data set by default.",
        ),
    ] = None
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS",
            help="Input axis of variable length, 0 the batch; or those of one input, its batch first: state=1; repeat. "
            "By default the batch and what varies in the data.",
        ),
    ] = None
    fixed_batch: Annotated[int | None, typer.Option(min=1, help="Batch size of a module that cannot vary it.")] = None
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Tokenizer of text:PATH; that of hf:FOLDER by default.")
    ] = None
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the longest text; by default what the model takes.")
    ] = None
    split: Annotated[str, typer.Option(help="Split that the examples are drawn from; never the one you report.")] = (
        "train"
    )
    examples: Annotated[int, typer.Option(min=2, help="Number of examples.")] = 512
    seed: Annotated[int, typer.Option(help="Seed for drawing the examples, and of what is random.")] = 0
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.py:NAME",
            help="What judges outputs by labels: accuracy, f1, mean_squared_error, ... or a function of outputs and "
            "targets; by default what fits them.",
        ),
    ] = None
    ignore_index: Annotated[int, typer.Option(help="Label that is not counted.")] = IGNORE_INDEX
    class_axis: Annotated[
        int | None, typer.Option(help="Axis of the classes in the output, if shapes do not tell: 1 of N, C, H, W.")
    ] = None

    def choice(self, validation: int | None = 0, hold_out: float = 0.0, bound: float | None = None) -> DataChoice:
        """Return what the options say about the data."""
        return DataChoice(
            data=self.data,
            split=self.split,
            model=self.model,
            preprocess=self.preprocess,
            tokenizer=self.tokenizer,
            max_length=self.max_length,
            fixed_batch=self.fixed_batch,
            axes=() if self.fixed_batch else parse_axes(self.dynamic or []),
            examples=self.examples,
            seed=self.seed,
            validation=validation,
            bound=bound,
            hold_out=hold_out,
            metric=self.metric,
        )

    def judged_words(self, metric: str, count: int) -> str:
        """Return on which examples a metric was measured, and what that says of others."""
        told = f"{metric} is of {plural(count, 'example')} of {self.data}"
        if self.split != "train":
            return f"{told}, split {self.split}"
        return f"{told}, split train: if the network was trained on them, it is worse on others"

    @property
    def passed(self) -> dict[str, Any]:
        """The arguments of the factory."""
        return parse_arguments(self.arguments or [])

    def call(
        self,
        function: str,
        choice: DataChoice,
        about_data: Callable[[ChosenInputs], Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Any:
        """Call a function that takes a module and inputs, as :func:`call_with_data`, and return what it returns."""
        return call_with_data(
            function,
            choice,
            self.passed,
            self.weights,
            about_data,
            ignore_index=self.ignore_index,
            class_axis=self.class_axis,
            **options,
        )


def with_options(shared: type[Shared]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator of a command whose first parameter is a data class of options.

    The command line gets the options of the class beside those of the command: what is needed first, in the order of
    both, then the command's own, then the others of the class.

    Example:
        >>> @with_options(ModuleOptions)
        ... def command(of: ModuleOptions, bits: int = 4) -> None: ...
        >>> [*inspect.signature(command).parameters][:4]
        ['model', 'data', 'bits', 'weights']
    """
    hints = get_type_hints(shared, include_extras=True)
    for each in fields(shared):
        for told in hints[each.name].__metadata__:
            if isinstance(told, OptionInfo) and told.rich_help_panel is None:
                told.rich_help_panel = shared.panel
    taken = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(shared)
    ]

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        own_hints = get_type_hints(command, include_extras=True)
        own = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=own_hints[each.name])
            for each in [*inspect.signature(command).parameters.values()][1:]
        ]
        needed = [each for each in [*taken, *own] if not _is_optional(each)]
        both = [*needed, *filter(_is_optional, own), *filter(_is_optional, taken)]

        @functools.wraps(command)
        def called(**given: Any) -> None:
            command(shared(**{each.name: given.pop(each.name) for each in taken}), **given)

        called.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in both}
        return called

    return decorated


def _is_optional(parameter: inspect.Parameter) -> bool:
    return parameter.default is not inspect.Parameter.empty
