"""The curves of a run as PNG, against the training step: solve rate and thinking; of a cold start, the loss."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # a Figure of our own: pyplot would choose a backend for the whole process
from matplotlib.ticker import MaxNLocator

from mini_r1.results.metrics import ATTEMPTS, ENUMERATING, LENGTH
from mini_r1.runs.records import Record, points
from mini_r1.tasks.task import FORMAT, SOLVED


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot against the training step; `key` is the metric's name in `log_history`, held out `eval_` + key."""

    name: str  # of its PNG file
    title: str
    key: str
    label: str  # of the y axis, with its unit
    is_rate: bool = False  # a share from 0 to 1, shown from 0 % to 100 %


ALWAYS = (
    Panel("solve_rate", "Solve rate", SOLVED, "solved (%)", is_rate=True),
    Panel("format", "Format rate", FORMAT, "completions in the format (%)", is_rate=True),
    Panel("length", "Completion length", LENGTH, "tokens per completion"),
)
OF_A_TASK = (
    Panel("attempts", "Attempts", ATTEMPTS, "attempts per completion"),
    Panel("enumerating", "Enumerating", ENUMERATING, "completions that enumerate (%)", is_rate=True),
)
OF_DEMONSTRATIONS = (
    Panel("predicted", "Tokens predicted", "mean_token_accuracy", "demonstrated token is likeliest (%)", is_rate=True),
    Panel("loss", "Loss", "loss", "nats per token of a demonstration"),
)


def panels_of(log: Sequence[Record]) -> tuple[Panel, ...]:
    """The panels of a run: those of a cold start; or what each run has, and what only some tasks measure, if this does.

    Args:
        log: the run's `log_history`. Only a cold start logs how many tokens of a demonstration are predicted.
    """
    if _has(OF_DEMONSTRATIONS[0], log):
        return OF_DEMONSTRATIONS
    return ALWAYS + tuple(panel for panel in OF_A_TASK if _has(panel, log))


def _has(panel: Panel, log: Sequence[Record]) -> bool:
    return bool(points(log, panel.key) or points(log, f"eval_{panel.key}"))


@dataclass(frozen=True, slots=True)
class Colours:
    """Colours of a plot. Those of the curves are Okabe and Ito's, which the colour-blind can tell apart."""

    background: str
    ink: str
    grid: str
    train: str
    held_out: str


LIGHT = Colours("#ffffff", "#1f2328", "#d8dee4", train="#0072B2", held_out="#D55E00")
DARK = Colours("#161b22", "#e6edf3", "#343b45", train="#56B4E9", held_out="#E69F00")


def draw(panels: Sequence[Panel], log: Sequence[Record], colours: Colours, legend: bool = True) -> bytes:
    """Return a PNG with the panels, two a row, and one legend; one is 900 x 600 pixels, three rows are 1650 x 1687."""
    rows, columns = math.ceil(len(panels) / 2), min(len(panels), 2)
    size, dpi = ((5, 10 / 3), 180) if len(panels) == 1 else ((11, 3.75 * rows), 150)  # inches; one: legible on a phone
    figure = Figure(figsize=size, dpi=dpi, layout="constrained", facecolor=colours.background)
    for index, panel in enumerate(panels):
        _draw_panel(figure.add_subplot(rows, columns, index + 1), panel, log, colours)
    if legend:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        style: Record = {"frameon": False, "fontsize": "small", "labelcolor": colours.ink}
        if len(panels) > 2 and len(panels) % 2:  # the last place is empty
            place = figure.add_subplot(rows, columns, len(panels) + 1, frameon=False, xticks=[], yticks=[])
            place.legend(handles, labels, loc="center", **style | {"fontsize": "medium"})
        else:
            figure.legend(handles, labels, loc="outside lower center", ncols=3, **style)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_panel(axes: Axes, panel: Panel, log: Sequence[Record], colours: Colours) -> None:
    scale = 100 if panel.is_rate else 1
    train, held_out = (
        {step: scale * value for step, value in points(log, key).items()} for key in (panel.key, f"eval_{panel.key}")
    )
    steps, values = list(train), list(train.values())
    axes.plot(steps, values, color=colours.train, linewidth=0.7, alpha=0.5, label="training batch")
    axes.plot(steps, smooth(values), color=colours.train, linewidth=2, label="training batch, smoothed")
    style: Record = {"color": colours.held_out, "linestyle": ":", "linewidth": 1.2, "marker": "o", "markersize": 5}
    # Markers at the edge stay whole. What is not clipped takes part in the layout, and without points would spoil it.
    style |= {"clip_on": False, "in_layout": False, "zorder": 3}
    axes.plot(list(held_out), list(held_out.values()), **style, label="held-out problems")
    axes.set_xlim(0, max([*train, *held_out], default=1) or 1)
    if not train and not held_out:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=colours.ink)
    if panel.is_rate:
        axes.set_ylim(0, 100)
    else:
        axes.set_ylim(0, 1.08 * max([*values, *held_out.values()], default=1) or 1)
    _style(axes, panel, colours)


def _style(axes: Axes, panel: Panel, colours: Colours) -> None:
    axes.set_title(panel.title, loc="left", color=colours.ink, fontweight="bold")
    axes.set_xlabel("training step", color=colours.ink)
    axes.set_ylabel(panel.label, color=colours.ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_facecolor(colours.background)
    axes.grid(color=colours.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours.ink, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours.grid)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the running mean over a window of a tenth of the values around each; at the ends what there is of it.

    The window is centred: a moving average of the past would show everything later than it happened.

    >>> smooth([0, 3, 0])
    [1.5, 1.0, 1.5]
    """
    reach = max(1, len(values) // 20)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]
