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
    Baseline("squared_relu", "max(x, 0)^2", "So et al. 2021 (Primer), arXiv 2109.08668"),
    Baseline("smelu", "max(x - 1, 0) + 0.25 * min(max(x + 1, 0), 2)^2", "Shamir et al. 2020, arXiv 2010.09931, beta 1"),
    Baseline(
        "snake", "x + sin(beta1 * x)^2 / beta1", "Ziyin et al. 2020, arXiv 2006.08195; a starts at 1 and is trained"
    ),
    Baseline(
        "sine", "sin(x)", "Sitzmann et al. 2020 (SIREN), arXiv 2006.09661; their omega_0 = 30 is a scale of weights"
    ),
    # Below -10 the factor is exactly 0, and above 10 exactly 1. Without the limits, slopes of float32 would be NaN
    # beyond 88, where exp overflows.
    Baseline("golu", "x * exp(-exp(-max(x, -10)))", "Das et al. 2025, arXiv 2502.03654"),
    Baseline("telu", "x * tanh(exp(min(x, 10)))", "Fernandez and Mali 2024, arXiv 2412.20269"),
    Baseline(
        "xielu",
        "max(x, 0)^2 * softplus(beta1 - 0.7966176791889754)"
        " + (expm1(min(x, 0)) - min(x, 0)) * (0.5 + softplus(beta2 - 2.050225612814847)) + 0.5 * x",
        "Huang and Schlag 2024, arXiv 2411.13010; both alphas start at 0.8, as there",
    ),
    # These two take the place of a normalisation (`--site norm`), where all channels share each parameter.
    Baseline("dyt", "tanh(0.5 * beta * x)", "Zhu et al. 2025, arXiv 2503.10622; alpha starts at 0.5, as there"),
    Baseline(
        "derf",
        "erf(0.5 * beta1 * x + beta2 - 1)",
        "Chen et al. 2025, arXiv 2512.10938; alpha starts at 0.5 and s at 0, as there",
    ),
)
KNOWN: Mapping[str, Baseline] = {row.name: row for row in _ROWS}
BASELINES: Mapping[str, Baseline] = {row.name: row for row in _ROWS[:12]}  # the default of every study
# What networks of these years are built with, with ReLU to compare with: `--baselines modern`.
MODERN = (
    *("relu", "gelu", "swish1", "swish", "mish", "hard_swish"),
    *("squared_relu", "xielu", "golu", "telu", "smelu", "snake", "sine"),
)

ALIASES: Mapping[str, str] = {
    "silu": "swish1",
    "identity": "linear",
    "rbf": "radial_basis",
    "relu2": "squared_relu",
    "siren": "sine",
}


# A gate is f(a) * b of the two halves of its channels. Its name, and the name of its f.
GATES: Mapping[str, str] = {
    "glu": "sigmoid",  # Dauphin et al. 2016, arXiv 1612.08083; the others: Shazeer 2020, arXiv 2002.05202
    "bilinear": "linear",
    "reglu": "relu",
    "geglu": "gelu",
    "swiglu": "swish1",
}

# For each place that a function can take in a network, the names of sets of functions, and the functions in them.
SETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "activation": {"all": tuple(BASELINES), "modern": MODERN, "none": ()},
    "gate": {
        "all": tuple(GATES),
        "modern": tuple({function: gate for gate, function in GATES.items()}.get(name, name) for name in MODERN),
        "none": (),
    },
    "norm": {"all": ("dyt", "derf", "tanh", "softsign", "linear"), "modern": ("dyt", "derf"), "none": ()},
}


def baseline(name: str, site: str = "activation") -> Baseline:
    """Return the known function with this name or alias; at a gate, the f of the gate with this name.

    Args:
        site: where the function is used: "activation", "gate" or "norm".

    Raises:
        SpaceError: there is no such function, or it is the name of a gate and the site is another one. The message
            lists the names.
    """
    if name in GATES and site != "gate":
        raise SpaceError(
            f"{name!r} is a gate, f(a) * b with {GATES[name]!r} as f, and here functions take the place of "
            f"{'a normalisation' if site == 'norm' else 'an activation'}; name {GATES[name]!r}, or use --site gate"
        )
    found = KNOWN.get(GATES.get(name, ALIASES.get(name, name)))
    if found is None:
        gates = GATES if site == "gate" else ()
        raise SpaceError(f"unknown baseline {name!r}; {nearest(name, [*gates, *KNOWN, *ALIASES])}")
    return found


def name_at(site: str, name: str) -> str:
    """Return what a known function, given by a name, is called at a site: `relu` is `reglu` at a gate."""
    function = baseline(name, site).name
    return next((gate for gate, known in GATES.items() if site == "gate" and known == function), name)
