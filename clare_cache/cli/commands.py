"""The tree of commands. Nothing heavy is imported until a command runs."""

from typing import Annotated

import typer

from clare_cache import __version__
from clare_cache.cli import (
    demo,
    doctor,
    estimate,
    head,
    manifest,
    protocol,
    published,
    recipe,
    run,
    stage_one,
    stage_two,
    store,
    weights,
)

app = typer.Typer(
    name="clare-cache",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Half of this field's tools spell flags with underscores.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
)
app.add_typer(
    manifest.app, name="manifest", help="Lists of images: build, check, split, sample, audit."
)
app.add_typer(
    store.app,
    name="store",
    help="Look after stores: info, status, diff, verify, repair, merge, prune, export.",
)
app.add_typer(head.app, name="head", help="Authors' checkpoints: import, export, card.")
app.add_typer(weights.app, name="weights", help="Networks without network: fetch, check.")
app.add_typer(recipe.app, name="recipe", help="Experiments as data: list, show, check, compare.")
app.add_typer(
    protocol.app, name="protocol", help="Which images train and test: list, apply, table."
)
app.add_typer(published.app, name="published", help="Tables of the literature: list, show.")
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(run.run)
app.command()(estimate.estimate)
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
