"""Progress on standard error: a bar on a terminal, a line every few seconds in a log file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from clare_cache.types import OnProgress
from clare_cache.types import Progress as Step

SECONDS_BETWEEN_LINES = 10.0


class RateColumn(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {task.fields['unit']}s/s")


@contextmanager
def show_progress() -> Iterator[OnProgress]:
    """A callback that shows how far the work is, at which rate, and when it will end."""
    if Console(stderr=True).is_terminal:
        with _bar() as bar:
            yield _bar_updater(bar)
    else:
        yield _line_printer()


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def _bar_updater(bar: Progress) -> OnProgress:
    tasks: dict[str, TaskID] = {}

    def on_terminal(step: Step) -> None:
        if step.what not in tasks:
            tasks[step.what] = bar.add_task(
                step.what, total=step.total, unit=step.unit, note=step.note
            )
        if step.done < bar.tasks[bar.task_ids.index(tasks[step.what])].completed:
            bar.reset(tasks[step.what])  # the same work begins again, on something else
        # rich leaves the first update out of its speed, as `_line_printer` does.
        bar.update(tasks[step.what], completed=step.done, total=step.total, note=step.note)

    return on_terminal


def _line_printer() -> OnProgress:
    started: dict[str, tuple[float, int]] = {}
    printed: dict[str, float] = {}
    last: dict[str, int] = {}

    def on_line(step: Step) -> None:
        now = time.monotonic()
        if step.done < last.get(step.what, 0):
            del started[step.what]  # the same work begins again, on something else
        last[step.what] = step.done
        # The clock starts with the first report, so what that one brings was not timed.
        began, untimed = started.setdefault(step.what, (now, step.done))
        due = now - printed.get(step.what, now - SECONDS_BETWEEN_LINES) >= SECONDS_BETWEEN_LINES
        if not due and step.done < step.total:
            return
        printed[step.what] = now
        rate = (step.done - untimed) / (now - began) if now > began else 0.0
        eta = f", ETA {(step.total - step.done) / rate:.0f} s" if rate else ""
        sys.stderr.write(
            f"{step.what}: {step.done}/{step.total} {step.unit}s"
            f"{f', {rate:.1f}/s' if rate else ''}{eta}{f', {step.note}' if step.note else ''}\n"
        )

    return on_line
