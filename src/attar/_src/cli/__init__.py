"""The command line: one file a command, imported when it is asked for; the top layer.

To add a command, write a module with one function and a line in ``COMMANDS``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import warnings
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from attar._src.core.errors import AttarError
from attar._src.core.optional import install_hint

#: Command -> its module and function, and what ``attar --help`` says of it.
COMMANDS = {
    "run": ("attar._src.cli.run:run_command", "Do what a recipe says: train, distil, prune, quantize, pack, measure."),
    "quantize": (
        "attar._src.cli.quantize:quantize_command",
        "Quantize a trained PyTorch module and pack it into a file.",
    ),
    "schema": ("attar._src.cli.schema:schema_command", "Print the JSON schema of recipes."),
    "report": ("attar._src.cli.report:report_command", "Make the page of a run anew."),
    "inspect": ("attar._src.cli.inspect:inspect_command", "Show where every byte of a file goes."),
    "verify": ("attar._src.cli.verify:verify_command", "Check every byte of a file."),
    "eval": ("attar._src.cli.eval:eval_command", "Measure the accuracy of a file on a data set."),
    "bench": ("attar._src.cli.bench:bench_command", "Measure latency, cold start and memory, against other files."),
    "export": ("attar._src.cli.export:export_command", "Write a file in the form of another runtime."),
}

_HELP = """Makes trained PyTorch models small and fast, in one verified file that runs without PyTorch.

attar run recipe.yaml

attar quantize net.py:build --weights net.safetensors --data cifar10 --bits 4 -o net.attar

attar eval net.attar --data cifar10

attar bench net.attar --against other.onnx

`attar COMMAND --help` shows what a command takes, with an example."""

_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it

# typer keeps its own copy of click in some versions and imports click in others; both have these above BadParameter.
_REFUSALS: tuple[type[Exception], ...] = typer.BadParameter.__bases__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for an error, 2 for wrong usage, 130 for an interruption.

    Args:
        arguments: what follows the program's name; ``sys.argv`` where None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _run(given)


def _run(given: list[str]) -> int:
    try:
        command = typer.main.get_command(_application(given))
        found: int | None = command.main(given, prog_name="attar", standalone_mode=False)
    except AttarError as error:
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        needed = install_hint(error)
        if needed is None:
            raise
        return _fail(needed, 1)
    except _REFUSALS as error:
        return _refuse(error)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", _INTERRUPTED)
    # Some versions of typer turn an interruption into this code instead of raising it.
    return _fail("interrupted", _INTERRUPTED) if found == _INTERRUPTED else found or 0


def _application(arguments: Sequence[str]) -> typer.Typer:
    """Return the application with the command that is asked for; the others are there by name alone."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (where, short) in COMMANDS.items():
        function = _imported(where) if name == asked else _named(short)
        takes = bool(signature(function).parameters)
        app.command(name, no_args_is_help=name == asked and takes, short_help=short)(function)
    return app


def _imported(where: str) -> Callable[..., Any]:
    module, _, name = where.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _named(short: str) -> Callable[[], None]:
    def command() -> None: ...

    command.__doc__ = short
    return command


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"attar {importlib.metadata.version('attar')}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _refuse(error: Any) -> int:
    """Print why the command line itself refuses its arguments."""
    message = error.format_message()
    if not message:
        error.show()
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "attar"
    return _fail(f"{message} Try `{path} --help`.", int(error.exit_code))


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning without the line of code it comes from; in place of ``warnings.showwarning``."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"[bold yellow]warning:[/] {escape(' '.join(str(message).split()))}"
    )


def _fail(message: str, code: int) -> int:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(message)}")
    return code
