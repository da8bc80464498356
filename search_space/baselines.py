"""The known activation functions, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_space.primitives import SpaceError, nearest


@dataclass(frozen=True, slots=True)
class Baseline:
    """A known function: its name, its text in the expression language, and a reference."""

    name: str
    expression: str
    reference: str


_ROWS = (
    # The functions that papers compare with most often come first: a small study takes only the first ones.
    Baseline("relu", "max(x, 0)", "Nair and Hinton 2010"),
    Baseline("swish", "x * sigmoid(beta * x)", "Ramachandran et al. 2017"),
    Baseline("gelu", "0.5 * x * (1 + erf(0.7071067811865476 * x))", "Hendrycks and Gimpel 2016"),
    Baseline("swish1", "x * sigmoid(x)", "Elfwing et al. 2017, as SiLU"),
    Baseline("elu", "max(x, 0) + expm1(min(x, 0))", "Clevert et al. 2015, alpha 1"),
    Baseline("leaky_relu", "max(x, 0) + 0.01 * min(x, 0)", "Maas et al. 2013, slope 0.01"),
    Baseline("prelu", "max(x, 0) + 0.25 * beta * min(x, 0)", "He et al. 2015; the slope starts at 0.25, as there"),
    Baseline(
        "selu",
        "1.0507009873554805 * max(x, 0) + 1.7580993408473766 * expm1(min(x, 0))",
        "Klambauer et al. 2017; 1.7581 is scale times alpha",
    ),
    Baseline("softplus", "softplus(x)", "Dugas et al. 2001"),
    Baseline("tanh", "tanh(x)", "LeCun et al. 1998"),
    Baseline("sigmoid", "sigmoid(x)", "logistic function"),
    Baseline("linear", "x", "identity"),
    # A study trains these only if they are asked for.
    Baseline("relu6", "min(max(x, 0), 6)", "Krizhevsky 2010; Howard et al. 2017"),
    Baseline("mish", "x * tanh(softplus(x))", "Misra 2019"),
    Baseline(
        "hard_sigmoid", "min(max(x / 6 + 0.5, 0), 1)", "Courbariaux et al. 2015; slope 1/6 as in Howard et al. 2019"
    ),
    Baseline("hard_swish", "x * min(max(x / 6 + 0.5, 0), 1)", "Howard et al. 2019"),
    Baseline("softsign", "x / (1 + abs(x))", "Turian et al. 2009"),
    Baseline(
        "celu", "max(x, 0) + beta * expm1(min(x, 0) / beta)", "Barron 2017; alpha starts at 1 and is trained here"
    ),
    Baseline("squareplus", "0.5 * (x + sqrt(x^2 + 4))", "Barron 2021, b = 4"),
    Baseline("radial_basis", "exp(-x^2)", "Broomhead and Lowe 1988, Gaussian"),
    Baseline("sign", "sign(x)", "McCulloch and Pitts 1943; no gradient: it cannot be trained through"),
    Baseline("heaviside", "max(sign(x), 0)", "McCulloch and Pitts 1943; no gradient; 0 at 0"),
)
KNOWN: Mapping[str, Baseline] = {row.name: row for row in _ROWS}
BASELINES: Mapping[str, Baseline] = {row.name: row for row in _ROWS[:12]}  # the default of every study

ALIASES: Mapping[str, str] = {"silu": "swish1", "identity": "linear", "rbf": "radial_basis"}


def baseline(name: str) -> Baseline:
    """Return the known function with this name or alias.

    Raises:
        SpaceError: there is no such function; the message lists the names.
    """
    found = KNOWN.get(ALIASES.get(name, name))
    if found is None:
        raise SpaceError(f"unknown baseline {name!r}; {nearest(name, [*KNOWN, *ALIASES])}")
    return found
