"""Control: how a search steps, as numbers that can be changed. Strategy: what it does with them."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.checks import Checked, Choice, Number, asked

RERANKS = EVENLY = ("auto", "always", "never")
CORRECT = ("unseen", "seen", "start")
ORDERS = ("several", "one")
MIRRORED = ("auto", "never")

SLACK = 1 + 1e-9
"""What a step may take more than its budget, for rounding."""


@dataclass(frozen=True)
class Control(Checked):
    """The constants of the controllers, of the damage and of least squares.

    Every ablation of docs/method.md is another value of one of them. H is the harmonic mean over
    classes of the mean probability of the true class.
    """

    stride: float = asked(Number(above=0, most=1), 0.05)
    """Step of one-shot and iterative. Unit: share of the removable filters."""
    step: float = asked(Number(above=0, most=1), 0.1)
    """Largest step of accuracy-aware. Unit: share of the filters that are left."""
    smallest: float = asked(Number(above=0, most=1), 0.05)
    """Smallest step that a fall of H leads to. Unit: share of the filters that are left."""
    finest: float = asked(Number(above=0, most=1), 0.0125)
    """Smallest step that a floor leads to. Unit: share of the filters that are left."""
    patience: int = asked(Number(whole=True, least=0), 4)
    """How often other layers are tried where the finest step breaks the floor. Unit: times between
    two steps that hold it."""
    little: float = asked(Number(least=0, most=1), 0.05)
    """Where a floor ends a search that saved less than this, it goes on in blocks of half the
    width, unless a width was asked for; so does a step that passes its target by more. Unit: share
    of what could go."""
    harmless: float = asked(Number(least=0), 0.967)
    """Steps grow by half where this much of H is kept, and no other order is tried. Unit: share of
    H before the step."""
    harmful: float = asked(Number(least=0), 0.9)
    """A step that keeps less is tried again at half its size. Unit: share of H before the step."""
    lost: float = asked(Number(least=0), 0.95)
    """Corrections are first tried where less than this is left. Unit: share of the unpruned H."""
    layer_share: float = asked(Number(above=0), 4.0)
    """A layer loses at most this in one step. Unit: multiple of the step's average share."""
    own_squares: float = asked(Number(least=0), 10.0)
    """How often the square of a channel's own effect counts in its damage. Unit: times. The terms
    of two channels are noisy, being estimated from few samples."""
    orders: str = asked(Choice(of=ORDERS), "several")
    """How many orders accuracy-aware tries where a step costs H: several, of which the one that
    keeps most of it is taken, or one."""
    longest_rest: int = asked(Number(whole=True, least=0), 4)
    """How long an order rests at most that was the worse one, once weights are corrected: a step
    at first, and twice as long each time that it was so again. Unit: steps."""
    fewer_squares: float = asked(Number(least=0), 1.0)
    """As `own_squares`, in the second order, which trusts the terms of two channels."""
    even_share: float = asked(Number(above=0), 2.0)
    """As `layer_share`, in the order by which layers lose the same share."""
    reranks: str = asked(Choice(of=RERANKS), "auto")
    """Whether accuracy-aware ranks again at each step: always, never, or auto: once for the steps
    that together are no larger than the largest, and never where channels are ranked by what least
    squares cannot restore."""
    evenly: str = asked(Choice(of=EVENLY), "auto")
    """Whether every layer loses the same share of its filters: always, never, or auto: where there
    are no samples, because weights alone do not say which layer can spare more."""
    correct: str = asked(Choice(of=CORRECT), "unseen")
    """When the order by damage begins to correct weights: once that helps unseen samples, once it
    helps those that the correction was fitted on (seen), or from the start. Where samples are many,
    and there is no floor, unseen is seen: the order has seen them as well."""
    ridge: float | None = asked(Number(least=0, optional=True), None)
    """The ridge of least squares, chosen for each layer without one. Unit: share of the mean
    variance of the kept channels."""
    ridge_share: float = asked(Number(least=0), 1 / 3)
    """The ridge of least squares, where it is chosen for each layer. Unit: share of what
    cross-validation chooses."""
    mirrored: str = asked(Choice(of=MIRRORED), "auto")
    """Whether least squares fits mirror images, too: never, or auto: where images are few."""
    variance: float = asked(Number(least=0, most=1), 1.0)
    """How much of the variance of its outputs least squares gives back to a layer. Unit: exponent
    of the factor: 1 all, 0 none."""
    fit_rounds: int = asked(Number(whole=True, least=0), 8)
    """How many times least squares fits a layer to what the activation behind it lets through; 0
    fits its outputs as they are. Unit: rounds."""


@dataclass(frozen=True)
class Strategy:
    """What a search does, chosen once from its settings.

    `measures`: whether nets are evaluated on the way; `ranks_once`: whether the ranking of the
    unpruned net holds to the end; `corrects`: when correcting weights begins, as `Control.correct`,
    or never. Units: stride, share of the removable filters.
    """

    stride: float = Control.stride
    measures: bool = True
    ranks_once: bool = False
    corrects: str = "never"

    @property
    def waits(self) -> bool:
        """Whether weights stay as they are until correcting them helps."""
        return self.corrects in ("unseen", "seen")
