"""Draws the pictures of the docs into docs/pictures: `python docs/figures.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from angulus.core import files
from angulus.losses import margins, theory
from angulus.report.charts import lines
from angulus.report.render_png import draw, save

FOLDER = Path(__file__).parent / "pictures"
THETA = np.linspace(0, math.pi, 721)
DEGREES = np.degrees(THETA)


def _curves(
    x: np.ndarray, values: dict[str, np.ndarray], title: str, x_label: str, y_label: str, mark: float | None = None
) -> Figure:
    """Curves by name over one x."""
    curves = {name: (x, y) for name, y in values.items()}
    return draw(lines(curves, title=title, x_label=x_label, y_label=y_label, mark=mark))


def target_curve(margin: margins.Margin) -> np.ndarray:
    """A margin over THETA, as the package computes it."""
    theta = torch.tensor(THETA)
    value: torch.Tensor = margin(theta, torch.ones_like(theta))
    return value.numpy()


def target_logits() -> Figure:
    """What stands for cosθ of the target, for every margin."""
    chosen: dict[str, margins.Margin] = {
        "CosFace, m = 0.35": margins.AdditiveCosine(0.35),
        "ArcFace, m = 0.5": margins.AdditiveAngle(0.5),
        "A-Softmax, ψ, m = 3": margins.Multiplicative(3),
        "A-Softmax, ψ, m = 3, λ = 5": margins.Multiplicative(3, annealing=5.0),
        "combined, θ + 0.3, − 0.2": margins.Combined(angle=0.3, cosine=0.2),
        "combined, 2θ, ψ": margins.Combined(multiplier=2.0, form="psi"),
    }
    values = {"no margin": np.cos(THETA)} | {name: target_curve(margin) for name, margin in chosen.items()}
    return _curves(DEGREES, values, title="Target logit over s", x_label="θ, degrees", y_label="margin(θ)", mark=90)


def beyond_pi() -> Figure:
    """ArcFace's three ways past θ + m = π."""
    values = {"no margin": np.cos(THETA)} | {
        f"beyond_pi={way!r}": target_curve(margins.AdditiveAngle(0.5, beyond_pi=way))
        for way in ("linear", "plain", "easy")
    }
    return _curves(
        DEGREES,
        values,
        title="ArcFace, m = 0.5, past θ = π − m",
        x_label="θ, degrees",
        y_label="margin(θ)",
        mark=math.degrees(math.pi - 0.5),
    )


def straight_through() -> Figure:
    """What the gradient of ArcFace's target is, exact and straight-through, per unit of cosθ."""
    inner = THETA[1:-1]
    exact = np.sin(inner + 0.5) / np.sin(inner)
    values = {"exact: sin(θ + m) / sin θ": np.clip(exact, -1, 6), "straight_through: 1": np.ones_like(inner)}
    return _curves(
        np.degrees(inner),
        values,
        title="Gradient of ArcFace's target with respect to cosθ, m = 0.5",
        x_label="θ, degrees",
        y_label="d margin / d cosθ (cut at 6)",
    )


def loss_floor() -> Figure:
    """NF Fig. 5: the floor of the normalised softmax loss against s = ℓ²."""
    s = np.linspace(0.1, 40, 400)
    values = {f"{n:,} classes": theory.loss_floor(s, n) for n in (10, 100, 1000, 10_000, 100_000)}
    return _curves(s, values, title="Floor of the loss (NF Prop. 2)", x_label="s = ℓ²", y_label="least loss")


def contraction() -> Figure:
    """CM Eq. 9, with the norm at which float32 loses the order at γ = 1."""
    norms = np.linspace(0, 40, 400)
    lower = theory.contraction_lower(0.9, 10)
    values = {f"γ = {gamma:g}": theory.contraction(norms, lower, 3 * lower, gamma) for gamma in (0.05, 0.1, 0.25, 1.0)}
    return _curves(
        norms,
        values,
        title="Contraction of the norm, C = 10, p = 0.9",
        x_label="‖x‖ (dotted: γ = 1 saturates in float32)",
        y_label="f(‖x‖)",
        mark=18,
    )


def iam_gradient() -> Figure:
    """IAM Eq. 13: the pull on the own class weight against the target probability."""
    p = np.linspace(0, 1, 200)
    values = {f"β = {beta:g}": theory.iam_own_pull(p, beta) for beta in (0, 0.1, 0.5, 0.8, 1, 2)}
    return _curves(
        p, values, title="Pull on the own class weight, in s", x_label="target probability p", y_label="1 − p + βp"
    )


def norms_and_probability() -> Figure:
    """NF Prop. 1 and FI Property 1 and 2: the target probability as the feature grows."""
    s = np.linspace(0, 8, 300)
    values = {
        "right: logits 1, 0.5, 0": theory.target_probability([1, 0.5, 0], 0, s),
        "wrong: logits 0.5, 1, 0": theory.target_probability([0.5, 1, 0], 0, s),
        "right by its bias at first: logits 0.3, 0.6": theory.target_probability([0.3, 0.6], 0, s, bias=[1, 0]),
    }
    return _curves(s, values, title="Softmax and the norm", x_label="norm of the feature", y_label="target probability")


def incay() -> Figure:
    """FI Sec. 6.3: how strongly each form of feature incay lets a norm grow."""
    norms = np.linspace(0.5, 6, 300)
    values = {
        "reciprocal: 2 / ‖x‖³": 2 / norms**3,
        "log: 2 / ‖x‖": 2 / norms,
        "linear: 2 ‖x‖": 2 * norms,
    }
    bound = theory.incay_bound(2.0, 16, 10)
    return _curves(
        norms,
        values,
        title="Feature incay's pull outward, λ = 1",
        x_label="‖x‖ (dotted: the bound for a mean norm of 2, C < 2d)",
        y_label="−dP / d‖x‖",
        mark=bound,
    )


def angle_and_norm() -> Figure:
    """A feature, the two nearest class weights, and the line that an angular margin moves."""
    figure = Figure(figsize=(5.6, 4.3), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    own, other, feature, m = math.radians(100), math.radians(10), math.radians(61), math.radians(28)
    turn = np.linspace(0, 2 * math.pi, 361)
    axes.plot(np.cos(turn), np.sin(turn), color="0.8", lw=1)
    middle = (own + other) / 2
    for angle, length, colour, name in (
        (own, 1.0, "C0", "w_y, the own class"),
        (other, 1.0, "C1", "w_j, another class"),
        (feature, 1.75, "C2", "x: right, but within the margin"),
    ):
        x, y = length * math.cos(angle), length * math.sin(angle)
        axes.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
        axes.text(1.05 * x, 1.05 * y, name, color=colour, ha="left" if x > 0 else "center", va="bottom")
    for angle, style, name in ((middle, "--", "as near to both"), (middle + m / 2, ":", "the same, with a margin")):
        axes.plot([0, 1.7 * math.cos(angle)], [0, 1.7 * math.sin(angle)], "k", ls=style, lw=1, label=name)
    for radius, angle, to, name in ((0.45, feature, own, "θ"), (0.3, other, feature, "θ_j")):
        part = np.linspace(angle, to, 60)
        axes.plot(radius * np.cos(part), radius * np.sin(part), color="0.3", lw=1)
        at = (angle + to) / 2
        axes.text((radius + 0.09) * math.cos(at), (radius + 0.09) * math.sin(at), name, ha="center", va="center")
    axes.legend(loc="lower left", frameon=False)
    axes.set(xlim=(-1.1, 2.2), ylim=(-0.5, 1.8))
    axes.axis("off")
    return figure


FIGURES = (
    angle_and_norm,
    target_logits,
    beyond_pi,
    straight_through,
    loss_floor,
    contraction,
    iam_gradient,
    norms_and_probability,
    incay,
)


def main() -> None:
    files.make_folder(FOLDER)
    for figure in FIGURES:
        save(figure(), FOLDER / f"{figure.__name__.replace('_', '-')}.png")


if __name__ == "__main__":
    main()
