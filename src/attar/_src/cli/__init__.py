"""The command line: one module for each command, imported on demand."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Annotated, Any

import typer

from attar._src.cli import option_words, show
from attar._src.core.errors import AttarError, place_of, short_message
from attar._src.core.lazy import install_hint

#: Command -> its line in ``attar --help``. Command ``x`` is the function ``x_command`` of the module ``x``, here or in
#: ``files``.
COMMANDS = {
    "run": "Run a recipe: train, distil, prune, quantize, pack, measure.",
    "compress": "Find the files of a trained module that hold a goal: a loss, bytes, milliseconds.",
    "compare": "Compare quantization, pruning and both on a trained module: which to use here?",
    "quantize": "Quantize a trained PyTorch module and write a .attar file.",
    "prune": "Remove channels, heads, units or layers of a trained module, or set weights to zero.",
    "sensitivity": "Measure each layer alone at several bits or sparsities: bytes, error, curves.",
    "schema": "Print the JSON schema of recipes.",
    "report": "Rebuild the page of a finished run.",
    "inspect": "Show the size of every part and tensor of a file.",
    "verify": "Check every byte of a file.",
    "eval": "Measure the accuracy of a file on a data set.",
    "bench": "Measure latency, cold start and memory, also beside other files.",
    "export": "Convert a file to the format of another runtime.",
    "repack": "Write a file again in the present format, in fewer bytes.",
}

_HELP = """Makes trained PyTorch models small and fast, in one verified file that runs without PyTorch.

attar run recipe.yaml

attar compress net.py:build --weights net.safetensors --data cifar10 --max-drop 1 -o found

attar compare net.py:build --weights net.safetensors --data cifar10 --bytes 90k -o compared

attar quantize net.py:build --weights net.safetensors --data cifar10 --bits 4 -o net.attar

attar eval net.attar --data cifar10

attar bench net.attar --against other.onnx

`attar COMMAND --help` shows the options of a command, with an example."""

#: Commands in the folder ``files``.
_ON_FILES = ("inspect", "verify", "eval", "bench", "export", "repack")

_INTERRUPTED = 130  # as in shells: 128 + SIGINT

# The base classes of BadParameter, from typer's own copy of click or from click, depending on the version.
_REFUSALS: tuple[type[Exception], ...] = typer.BadParameter.__bases__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for an error, 2 for wrong usage, 130 if interrupted.

    Args:
        arguments: arguments after the program's name; those of the process if None.
    """
    with warnings.catch_warnings(), show.any_character():
        warnings.showwarning = _warn
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(given: list[str]) -> int:
    # Until the error of the command is told, too.
    with contextlib.ExitStack() as words:
        return _called(given, words)


def _asked(given: Sequence[str]) -> str | None:
    return next((argument for argument in given if not argument.startswith("-")), None)


def _called(given: list[str], words: contextlib.ExitStack) -> int:
    try:
        command: Any = typer.main.get_command(_application(given))
        if (name := _asked(given)) in COMMANDS:
            words.enter_context(option_words.option_words_of(str(name), command.commands[name].params))
        found: int | None = command.main(given, prog_name="attar", standalone_mode=False)
        if sys.stdout is not None:
            # Here and not at exit, where Python would print a traceback.
            sys.stdout.flush()
    except OSError as error:
        # Errors of a file have its name; those of standard output have none.
        code = 1 if error.filename else _silence(1)
        return _fail(f"{error.filename or 'the output'}: {error.strerror or error}", code)
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
    # Some versions of typer return this code instead of raising Abort.
    return _fail("interrupted", _INTERRUPTED) if found == _INTERRUPTED else found or 0


def _application(arguments: Sequence[str]) -> typer.Typer:
    """Return the application with one command imported; the others are names with a line of help."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    asked = _asked(arguments)
    for name, short in COMMANDS.items():
        function = _naming_end_of_file(load_command(name)) if name == asked else lambda: None
        app.command(name, no_args_is_help=bool(signature(function).parameters), short_help=short)(function)
    return app


def _naming_end_of_file(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose EOFError is an error; typer takes it for the end of the user's input, an interruption."""

    @functools.wraps(command)
    def named(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except EOFError as error:
            place = place_of(error)
            raise AttarError(f"{short_message(error)}{f' ({place})' if place else ''}") from error

    return named


def load_command(name: str) -> Callable[..., Any]:
    """Import the function of a command."""
    module = importlib.import_module(f"attar._src.cli.{'files.' if name in _ON_FILES else ''}{name}")
    function: Callable[..., Any] = getattr(module, f"{name}_command")
    return function


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
    message = error.format_message()
    if not message:
        error.show()
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "attar"
    end = "" if message.endswith((".", "?", "!")) else "."
    return _fail(f"{message}{end} Try `{path} --help`.", int(error.exit_code))


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning without its source line; replaces ``warnings.showwarning``."""
    show.say("[bold yellow]warning:[/]", " ".join(str(message).split()))


def _silence(code: int) -> int:
    """Discard what standard output still holds, which Python would try to write at exit; return ``code``."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _fail(message: str, code: int) -> int:
    show.say("[bold red]error:[/]", message)
    return code
