"""`clare-cache train-head`, `evaluate`, `predict`, `report`: stage two."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clare_cache.cli.board import show_board, show_chosen, show_forecast, show_plan, show_scores
from clare_cache.cli.options import AsJson, Clip, Device, RecipeName, RunFolders, Sd
from clare_cache.cli.output import count, print_json, print_result, print_table, say
from clare_cache.cli.progress import show_progress


def train_head(
    recipe: RecipeName,
    store: Annotated[str, typer.Option(help="Store that `extract` filled: folder or URL.")],
    manifest: Annotated[Path, typer.Option(help="Labels, splits and groups of its images.")],
    out: Annotated[Path, typer.Option(help="Run folders are written below it.")] = Path("runs"),
    head: Annotated[
        list[str], typer.Option(help="Train only this head (label or family), repeatable.")
    ] = [],  # noqa: B006
    change: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="KEY=VALUE, repeatable: train.lr=1e-3, head.width=512. KEY=V1,V2 is a sweep; "
            "KEY=LOW..HIGH (or LOW..HIGH:log) is drawn from, with --sample.",
        ),
    ] = [],  # noqa: B006
    sample: Annotated[
        int | None, typer.Option(min=1, help="Draw so many combinations, not all.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--search", min=1, help="Search so many combinations with Optuna, in rounds of 8."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Train every combination with so many seeds.")
    ] = 1,
    budget_minutes: Annotated[
        float | None, typer.Option(help="End training after so long, with what there is.")
    ] = None,
    validate_on: Annotated[
        str | None,
        typer.Option(help="`group` or `held-out-generator`; default: the recipe's."),
    ] = None,
    track: Annotated[
        list[str],
        typer.Option(help="tensorboard, wandb or mlflow hear of each epoch, repeatable."),
    ] = [],  # noqa: B006
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Have workers train heads of equal shapes: local:N, cuda or slurm:FILE, as in "
            "extract; --out must be a folder that they share."
        ),
    ] = None,
    dask: Annotated[str | None, typer.Option(help="Address of a running scheduler.")] = None,
    again: Annotated[bool, typer.Option(help="Train finished heads again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the heads, predicted time and memory; stop.")
    ] = False,
    clip: Clip = None,
    device: Device = "auto",
) -> None:
    """Train the heads of a recipe from cached tensors, all in one pass over the data.

    Lists in the recipe and --set make a sweep: one head for each combination, all on the same
    batches. It ends with the heads ranked on validation (leaderboard.csv in --out) and, for a
    sweep, the test numbers of the best alone.
    """
    from clare_cache.errors import TrainError
    from clare_cache.evaluate import BOARD
    from clare_cache.recipe import read_recipe
    from clare_cache.workflow.forecast import forecast
    from clare_cache.workflow.training import train_head as train

    told: dict[str, Any] = {
        "store": store,
        "manifest": manifest,
        "out": out,
        "clip": clip,
        "device": device,
        "again": again,
    }
    if trials is not None:
        from clare_cache.workflow.search import search

        if dry_run or cluster or dask or sample or budget_minutes:
            raise TrainError(
                "--search: expected none of --dry-run, --cluster, --dask, --sample and "
                "--budget-minutes beside it, found one. Leave it out."
            )
        with show_progress() as on_progress:
            search(
                recipe, changes=change, trials=trials, seeds=seeds, heads=head,
                validate_on=validate_on, trackers=track, on_progress=on_progress, **told,
            )  # fmt: skip
        show_board(out)
        show_chosen(out, clip=clip, device=device)
        return
    asked = read_recipe(recipe, changes=change, sample=sample, seeds=seeds).select_heads(head)
    asked = asked.with_training(validate_on=validate_on)
    if dry_run:
        show_forecast(*forecast(asked, **told))
        return
    try:
        with show_progress() as on_progress:
            train(
                asked,
                **told,
                budget_minutes=budget_minutes,
                trackers=track,
                cluster=cluster,
                dask=dask,
                on_plan=show_plan,
                on_progress=on_progress,
            )
    except TrainError:
        # The heads that diverged are named last; the others are there.
        if (out / f"{BOARD}.parquet").is_file():
            show_board(out)
        raise
    show_board(out)
    swept = [bool(section.settings) for section in asked.head]
    is_tested = any(swept) and show_chosen(out, clip=clip, device=device)
    if is_tested and all(swept):
        print_result(f"next: clare-cache report {out} -o report.html")
    else:
        print_result(f"next: clare-cache evaluate {out}")


def evaluate(
    runs: RunFolders,
    store: Annotated[str | None, typer.Option(help="Default: the run's.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Another list of images; default: the run's.")
    ] = None,
    split: Annotated[
        list[str], typer.Option(help="Splits to score, repeatable; default: the recipe's.")
    ] = [],  # noqa: B006
    view: Annotated[
        list[str], typer.Option(help="Views to score, repeatable; default: all the store has.")
    ] = [],  # noqa: B006
    all_members: Annotated[
        bool,
        typer.Option("--all-members", help="Score every member of a sweep, not the best alone."),
    ] = False,
    clip: Clip = None,
    device: Device = "auto",
    json: AsJson = False,
) -> None:
    """Score trained heads over test sets; write predictions, metrics and a model card.

    Of a sweep's folder only the member that is best on validation is scored, with all its seeds.
    """
    from clare_cache.files import read_json
    from clare_cache.workflow.leaders import choose_members
    from clare_cache.workflow.results import METRICS_FILE
    from clare_cache.workflow.results import evaluate as evaluate_runs

    chosen, choices = choose_members(runs)
    if not all_members:
        for choice in choices:
            say(
                f"{choice.folder}: {count(choice.n_members, 'member')} of a sweep; validation "
                f"chose {', '.join(run.name for run in choice.runs)}, the others are not scored "
                "(--all-members scores them)"
            )
    tables = evaluate_runs(
        runs if all_members else chosen,
        store=store,
        manifest=manifest,
        splits=split or None,
        views=view or None,
        clip=clip,
        device=device,
    )
    if json:
        print_json({str(run): table.to_dict("records") for run, table in tables.items()})
        return
    warnings: dict[str, list[Path]] = {}
    for run, table in tables.items():
        show_scores(table, title=str(run))
        for text in read_json(run / METRICS_FILE)["warnings"]:
            warnings.setdefault(text, []).append(run)
    for text, owners in warnings.items():
        say(f"{', '.join(map(str, owners))}: {text}")
    print_result("accuracy is at the threshold chosen on validation; for val itself that flatters")
    if len(tables) > 1:
        print_result(
            "choose among heads by leaderboard.csv, on validation: the best of these would be an "
            "oracle's choice"
        )


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a CSV instead of a table.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Heads that pool regions: a table with the columns path and boxes."),
    ] = None,
    root: Annotated[
        Path, typer.Option(help="Folder that the paths of --boxes are relative to.")
    ] = Path(),
    sd: Sd = None,
    clip: Clip = None,
    device: Device = "auto",
    json: AsJson = False,
) -> None:
    """Score new images: probability of fake, verdict, or the reason why there is none."""
    from clare_cache.files import make_folder
    from clare_cache.workflow.prediction import image_files, uncalibrated, unproven_weights
    from clare_cache.workflow.prediction import predict as predict_images

    notes: list[str] = []
    files = image_files(images, notes)
    if output is not None:
        make_folder(output.parent)
    told = uncalibrated(run) if json or output is not None else []
    for note in [*notes, *unproven_weights(run, clip=clip), *told]:
        say(note)
    with show_progress() as on_progress:
        table = predict_images(
            run,
            files,
            boxes=boxes,
            root=root,
            sd=sd,
            clip=clip,
            device=device,
            on_progress=on_progress,
        )
    if output is not None:
        table.to_csv(output, index=False)
        print_result(f"{output}: {count(len(table), 'image')}")
    elif json:
        print_json(table.astype(object).where(table.notna(), None).to_dict("records"))
    else:
        print_table(
            ["image", "probability of fake", "verdict", "reason"],
            [
                [r["path"], "" if r["reason"] else f"{r['score']:.4f}", r["verdict"], r["reason"]]
                for r in table.to_dict("records")
            ],
        )
    if (table["verdict"] == "unusable").any():
        raise typer.Exit(3)


def report(
    runs: RunFolders,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The page (.html), or a table for a paper (.tex, .md, .csv)."
        ),
    ] = Path("report.html"),
    title: Annotated[
        str, typer.Option(help="Title of the page.")
    ] = "Detectors of generated images",
    root: Annotated[
        Path | None, typer.Option(help="Folder of the images, to show some of them.")
    ] = None,
    note: Annotated[list[str], typer.Option(help="A remark on top, repeatable.")] = [],  # noqa: B006
) -> None:
    """Write one self-contained HTML page about evaluated runs, or a table for a paper."""
    from clare_cache.files import make_folder
    from clare_cache.workflow.results import report as write_report

    make_folder(output.parent)
    print_result(str(write_report(runs, output, title=title, root=root, notes=note)))
