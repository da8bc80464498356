"""List the variants of our networks that tests go through."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "resnet8": {"width": 4},
    "resnet20": {"width": 3},
    "resnet32": {"width": 3},
    "resnet56": {"width": 2},
    "resnet110": {"width": 2},
    "preresnet164": {"width": 3, "depth": 20},
    "wrn-28-10": {"width": 2, "depth": 16, "widen": 2},
    "densenet-100-12": {"width": 3, "depth": 13},
    "all-cnn": {"width": 8},
    "inception": {"width": 4},
    "lecture": {"width": 4},
    "vit-4-64": {"width": 12, "depth": 2, "heads": 2},
}


POOLINGS = ("max", "average", "strided", "lp", "stochastic", "fractional", "spatial_pyramid")


def named(variant: tuple[str, dict[str, Any]]) -> str:
    return "-".join([variant[0], *(f"{key}={value}" for key, value in variant[1].items() if key != "width")])
