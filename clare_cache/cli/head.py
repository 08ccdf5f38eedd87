"""`clare-cache head …`: the authors' checkpoints in and out, users' heads tried, model cards."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clare_cache.cli.options import Clip
from clare_cache.cli.output import print_result, say

app = typer.Typer(no_args_is_help=True)

RunFolder = Annotated[Path, typer.Argument(help="Run folder.")]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What the authors' code saved, or safetensors.")],
    family: Annotated[str, typer.Option(help="rine, ufd, clare or prompt_tuning.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder to write.")],
    clip: Clip = None,
    option: Annotated[
        list[str],
        typer.Option(help="NAME=VALUE that no tensor tells (class_position=front), repeatable."),
    ] = [],  # noqa: B006
) -> None:
    """Make a run folder of an authors' checkpoint, for `evaluate` and `predict`."""
    from clare_cache.workflow.checkpoints import import_run, next_steps

    options = dict(_parse(text) for text in option)
    found = import_run(file, output, family=family, clip=clip, **options)
    head = found.head
    size = sum(parameter.numel() for parameter in head.parameters())
    told = ", ".join(f"{name}={value}" for name, value in head.options.items()) or "no options"
    print_result(f"{output}: {head.family}, {size:,} parameters, {told}")
    for remark in found.remarks:
        say(f"  {remark}")
    if found.ignored:
        say(f"  ignored: {_shorten(found.ignored)}")
    first, *others = next_steps(output)
    print_result(f"next: {first}")
    for line in others:
        print_result(f"      {line}")


@app.command("export")
def export(
    run: RunFolder,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .pth, or .safetensors.")
    ],
    clip: Clip = None,
) -> None:
    """Write a run's head in its authors' naming, to check results in their code."""
    from clare_cache.workflow.checkpoints import export_run

    for remark in export_run(run, output, clip=clip):
        say(f"  {remark}")
    print_result(str(output))


@app.command("check")
def check(
    family: Annotated[str, typer.Argument(help="MODULE:CLASS of a head of your own, or a family.")],
    option: Annotated[
        list[str], typer.Option(help="NAME=VALUE of the head's options, repeatable.")
    ] = [],  # noqa: B006
    store: Annotated[
        str | None,
        typer.Option(help="Take shapes from this store, by default those of ViT-L/14 and SD."),
    ] = None,
    clip: Clip = None,
) -> None:
    """Try what training asks of a head, on made-up features; status 1 if it does not keep it."""
    from clare_cache.workflow.own_heads import try_head

    found = try_head(family, store=store, clip=clip, **dict(_parse(text) for text in option))
    for what, faults in found.items():
        print_result(f"{'no' if faults else 'ok'}  {what}")
        for fault in faults:
            print_result(f"      {fault}")
    if any(found.values()):
        raise typer.Exit(1)


@app.command("card")
def card(run: RunFolder) -> None:
    """Write a run's model card, README.md, and print it."""
    from clare_cache.workflow.checkpoints import write_model_card

    print_result(write_model_card(run))


def _parse(text: str) -> tuple[str, Any]:
    import json

    name, found, value = text.partition("=")
    if not (name and found):
        raise typer.BadParameter(f"--option {text}: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _shorten(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
