"""The command line: its commands, its exit statuses, and the line that resumes.

0 done · 1 a check failed or the input is wrong · 2 usage · 3 finished, but some images are in the
ledger · 130 interrupted. Nothing heavy is imported until a command runs.
"""

import shlex
import sys
from typing import Annotated

import typer

from clare_cache import __version__
from clare_cache.cli import demo, head, manifest, recipe, stage_one, stage_two, store
from clare_cache.cli.output import say
from clare_cache.errors import ClareCacheError

INTERRUPTED = 130

app = typer.Typer(
    name="clare-cache",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Half of this field's tools spell flags with underscores.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
)
app.add_typer(manifest.app, name="manifest", help="Lists of images: build, check, split.")
app.add_typer(store.app, name="store", help="Look after stores: info, verify.")
app.add_typer(head.app, name="head", help="Authors' checkpoints: import, export, card.")
app.add_typer(recipe.app, name="recipe", help="Experiments as data: list, show, check.")
app.command()(demo.demo)
app.command()(stage_one.extract)
app.command()(stage_two.train_head)
app.command()(stage_two.evaluate)
app.command()(stage_two.predict)
app.command()(stage_two.report)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and exit.")
    ] = False,
) -> None:
    """Run Stable Diffusion and CLIP once per image; train detector heads from the cache."""


def main() -> None:
    """The console script."""
    try:
        app()
    except ClareCacheError as error:
        if "--debug" in sys.argv:
            raise
        say(f"error: {error}")
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            say(f"interrupted; nothing that was committed is lost. Resume with:\n  {_this_call()}")
        raise


def _this_call() -> str:
    return shlex.join(["clare-cache", *sys.argv[1:]])
