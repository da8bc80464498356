"""Check that equal keys mean equal functions, with an evaluator that shares no code with the keys.

    python -m benchmarks.keys [--count 20000] [--rewrites 20000]

False merges: draw random expressions from several spaces, group them by key, and compare each member of a group with
the group's first member on 12,001 points of [-6, 6], with every parameter at 1 and at three random draws. Two members
with parameters are one function if some assignment of the parameters makes them agree.

False splits: rewrite random expressions by identities (`tanh(a)` as `2 * sigmoid(2 * a) - 1`) and count the pairs whose
keys differ. A pair whose forms are different functions in float64 is counted as `not_equal` instead: at some of 60
random draws of the parameters they differ by more than 1e-9, as sinh(x) + cosh(x) and exp(x) do at x = -30, or one
alone is infinite or not a number, as the former is at x = -800.

The evaluator reads the expression's text with Python's own parser and computes with numpy and scipy.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from search_space import Expression, Grammar, key, parse, space
from search_space.matching import match

Array = NDArray[np.float64]

SPACES = (("swish2017", 2), ("small1", 2), ("large1", 2), ("swish2017", 3))
POINTS: Array = np.linspace(-6.0, 6.0, 12_001)
TOLERANCE = 1e-3  # absolute; a millionth of the value is allowed where values are large
MAX_MATCHED = 5  # parameters whose orders are all tried

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "log": np.log,
    "exp": np.exp,
    "expm1": np.expm1,
    "sin": np.sin,
    "cos": np.cos,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "sinc": lambda a: np.sinc(a / np.pi),
    "sigmoid": scipy.special.expit,
    "softplus": lambda a: np.logaddexp(0.0, a),
    "erf": scipy.special.erf,
    "max": np.maximum,
    "min": np.minimum,
}
_OPERATORS: Mapping[type, Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


def values(text: str, x: Array, betas: Mapping[str, float]) -> Array:
    """The function that `text` writes, at each point of `x` (float64)."""

    def compute(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return np.float64(value)
            case ast.Name(id="x"):
                return x
            case ast.Name(id="eps"):
                return np.float64(1e-6)
            case ast.Name(id=name):
                return np.float64(betas[name])
            case ast.UnaryOp(operand=operand):
                return -compute(operand)
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](compute(left), compute(right))
            case ast.Call(func=ast.Name(id=name), args=args):
                return _FUNCTIONS[name](*map(compute, args))
        raise ValueError(f"no expression: {ast.dump(node)}")

    with np.errstate(all="ignore"):
        return np.broadcast_to(compute(ast.parse(text.replace("^", "**"), mode="eval").body), x.shape)


def parameters(text: str) -> tuple[str, ...]:
    names = (node.id for node in ast.walk(ast.parse(text.replace("^", "**"))) if isinstance(node, ast.Name))
    return tuple(dict.fromkeys(name for name in names if name.startswith("beta")))


def draws(seed: int, slots: int) -> list[tuple[float, ...]]:
    """Every parameter at 1, and three random draws."""
    rng = random.Random(seed)
    return [(1.0,) * slots, *(tuple(rng.uniform(-2.5, 3.5) for _ in range(slots)) for _ in range(3))]


def difference(
    one: str, other: str, seed: int, points: Array = POINTS, tolerance: float = TOLERANCE, undefined: bool = False
) -> tuple[float, float]:
    """The largest difference of two functions, in units of what is allowed, and the point where it is.

    Points where either value is infinite or not a number are left out. With `undefined`, the difference is infinite
    where one value alone is so.
    """
    first, second = sorted((parameters(one), parameters(other)), key=len)
    one, other = (one, other) if parameters(one) == first else (other, one)
    slots = len(second)
    rows = draws(seed, slots)
    wanted = [values(other, points, dict(zip(second, row, strict=True))) for row in rows]
    best = (np.inf, np.nan)
    for order in itertools.permutations(range(slots), len(first)):
        worst = (0.0, np.nan)
        for row, target in zip(rows, wanted, strict=True):
            found = values(one, points, {name: row[place] for name, place in zip(first, order, strict=True)})
            worst = max(worst, _distance(found, target, points, tolerance, undefined))
            if worst[0] >= best[0]:
                break
        best = min(best, worst)
        if best[0] <= 1:
            break
    return best


def _distance(one: Array, other: Array, points: Array, tolerance: float, undefined: bool) -> tuple[float, float]:
    both = np.isfinite(one) & np.isfinite(other)
    with np.errstate(all="ignore"):
        allowed = tolerance + tolerance / 1_000 * np.maximum(np.abs(one), np.abs(other))
        gap = np.where(both, np.abs(one - other) / allowed, 0.0)
    if undefined:
        gap[np.isfinite(one) != np.isfinite(other)] = np.inf
    worst = int(gap.argmax())
    return float(gap[worst]), float(points[worst])


@dataclass(slots=True)
class Merges:
    """What one space gave. `false`: merged pairs that differ, with the size and place of the difference."""

    space: str
    units: int
    expressions: int = 0
    functions: int = 0
    merged_pairs: int = 0
    not_judged: int = 0  # pairs with more parameters than can be matched
    false: list[tuple[str, str, float, float]] = field(default_factory=list)
    milliseconds_a_key: float = 0.0


def merges(name: str, units: int, count: int, seed: int = 0, points: Array = POINTS) -> Merges:
    """Group `count` random expressions of a space by key, and compare the members of each group."""
    grammar, rng = space(name, units=units), random.Random(seed)
    expressions = list(dict.fromkeys(grammar.decode(grammar.sample(rng)) for _ in range(count)))
    found, groups = Merges(name, units, len(expressions)), defaultdict(list)
    start = time.perf_counter()
    keys = [key(expression) for expression in expressions]
    found.milliseconds_a_key = 1e3 * (time.perf_counter() - start) / len(expressions)
    for name_of_function, expression in zip(keys, expressions, strict=True):
        groups[name_of_function].append(str(expression))
    found.functions = len(groups)
    for first, *others in groups.values():
        for other in others:
            found.merged_pairs += 1
            if max(len(parameters(first)), len(parameters(other))) > MAX_MATCHED:
                found.not_judged += 1
                continue
            size, place = difference(first, other, seed, points)
            if size > 1:
                found.false.append((first, other, size * TOLERANCE, place))
    return found


# Identities of real functions, over all real a and b unless the name of the pattern restricts them.
IDENTITIES: tuple[tuple[str, str], ...] = (
    ("a + b", "b + a"),
    ("a * b", "b * a"),
    ("a - b", "a + -b"),
    ("a - b", "-(b - a)"),
    ("-a", "b + (-b - a)"),
    ("a + b", "2 * b + (a - b)"),
    ("max(a, b)", "max(b, a)"),
    ("max(a, b)", "a + max(b - a, 0)"),
    ("max(a, b)", "(a + b + abs(a - b)) / 2"),
    ("max(a, b)", "-min(-a, -b)"),
    ("max(a, b)", "a + b - min(a, b)"),
    ("min(a, b)", "b - max(b - a, 0)"),
    ("min(a, b)", "(a + b - abs(a - b)) / 2"),
    ("min(a, b)", "-max(-b, -a)"),
    ("abs(a)", "max(a, -a)"),
    ("abs(a)", "sqrt(a^2)"),
    ("abs(a)", "sign(a) * a"),
    ("a^2", "a * a"),
    ("a^2", "abs(a)^2"),
    ("a^3", "a * a^2"),
    ("exp(a)", "sinh(a) + cosh(a)"),
    ("exp(a)", "1 / exp(-a)"),
    ("exp(a)", "expm1(a) + 1"),
    ("exp(a)", "exp(a / 2)^2"),
    ("sin(a)", "-sin(-a)"),
    ("sin(a)", "2 * sin(a / 2) * cos(a / 2)"),
    ("cos(a)", "1 - 2 * sin(a / 2)^2"),
    ("cos(a)", "cos(abs(a))"),
    ("sinh(a)", "(exp(a) - exp(-a)) / 2"),
    ("cosh(a)", "(exp(a) + exp(-a)) / 2"),
    ("tanh(a)", "2 * sigmoid(2 * a) - 1"),
    ("tanh(a)", "1 - 2 / (exp(2 * a) + 1)"),
    ("asinh(a)", "-asinh(-a)"),
    ("atan(a)", "-atan(-a)"),
    ("sinc(a)", "sinc(-a)"),
    ("sigmoid(a)", "1 - sigmoid(-a)"),
    ("sigmoid(a)", "1 / (1 + exp(-a))"),
    ("sigmoid(a)", "0.5 + 0.5 * tanh(a / 2)"),
    ("sigmoid(a) * b", "b - b * sigmoid(-a)"),
    ("softplus(a)", "a + softplus(-a)"),
    ("softplus(a)", "log(1 + exp(a))"),
    ("softplus(a)", "max(a, 0) + softplus(-abs(a))"),
    ("erf(a)", "-erf(-a)"),
    ("a * (b + c)", "a * b + a * c"),
    ("a / (b + eps)", "a * (1 / (b + eps))"),
    ("beta1 * a + (1 - beta1) * b", "b + beta1 * (a - b)"),
    ("exp(-beta1 * (a - b)^2)", "exp(-beta1 * (b - a)^2)"),
    ("log(abs(a) + eps)", "log(abs(-a) + eps)"),
)


def rewritten(tree: Expression, rng: random.Random) -> tuple[Expression, str] | None:
    """Use one identity at one random place of the tree. Return the new tree and the identity; None if none fits."""
    nodes: list[Expression] = []
    tree.fold(lambda node, _: nodes.append(node))
    target = rng.choice(nodes)
    wild = frozenset({"a", "b", "c", "beta1"})
    fitting = []
    for left, right in IDENTITIES:
        form = _with_wild_beta(parse(left, ("a", "b", "c")))
        bound = next(match(form, target, wild, lambda name, node: name != "beta1" or node.op == "beta"), None)
        if bound is not None:
            fitting.append((left, right, bound))
    if not fitting:
        return None
    left, right, bound = rng.choice(fitting)
    body = _with_wild_beta(parse(right, ("a", "b", "c")))
    changed = body.substitute({"b": Expression("x"), "c": Expression("x"), **bound})
    done = False

    def replace(node: Expression, args: tuple[Expression, ...]) -> Expression:
        nonlocal done
        if node is target and not done:
            done = True
            return changed
        return Expression(node.op, args, node.value)

    return tree.fold(replace), f"{left} = {right}"


def _with_wild_beta(form: Expression) -> Expression:
    """Return the form with its parameter as a variable, `beta1`, that stands for any parameter."""
    return form.fold(
        lambda node, args: Expression("beta1") if node.op == "beta" else Expression(node.op, args, node.value)
    )


@dataclass(slots=True)
class Splits:
    """Rewritten forms whose key differs from the original's, by the identities used."""

    space: str
    units: int
    pairs: int = 0
    split: int = 0
    not_equal: int = 0  # pairs that rounding errors make different functions: sinh(x) + cosh(x) and exp(x) at -30
    by_identity: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)


def splits(name: str, units: int, count: int, seed: int = 1) -> Splits:
    """Rewrite `count` random expressions with one to three identities, and compare the keys."""
    grammar, rng, found = space(name, units=units), random.Random(seed), Splits(name, units)
    while found.pairs < count:
        tree = new = grammar.decode(grammar.sample(rng))
        used = []
        for _ in range(rng.randint(1, 3)):
            if (step := rewritten(new, rng)) is not None:
                new, identity = step
                used.append(identity)
        if not used or _too_large(new):
            continue
        if key(tree) == key(new):
            found.pairs += 1
        elif _differ_in_float64(str(tree), str(new)):
            found.not_equal += 1
        else:
            found.pairs += 1
            found.split += 1
            found.by_identity.update(used)
            found.examples.append((str(tree), str(new)))
    return found


def _differ_in_float64(one: str, other: str) -> bool:
    points = POINTS[::10]
    return any(difference(one, other, draw, points, tolerance=1e-9, undefined=True)[0] > 1 for draw in range(20))


def _too_large(tree: Expression) -> bool:
    return tree.size > 128 or tree.depth > 32


def one_unit() -> tuple[int, float]:
    """How many functions the 6,250 expressions of one unit are, and the seconds to key them."""
    grammar = Grammar(1)
    expressions = [grammar.decode(grammar.unrank(index)) for index in range(grammar.size)]
    start = time.perf_counter()
    return len({key(expression) for expression in expressions}), time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="random expressions a space")
    parser.add_argument("--rewrites", type=int, default=20_000, help="rewritten pairs a space")
    parser.add_argument("--examples", type=int, default=5, help="wrong pairs to print a space")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for line in lines(options):
        print(line, flush=True)


def lines(options: argparse.Namespace) -> Iterator[str]:
    functions, seconds = one_unit()
    yield f"one unit of swish2017: 6250 expressions, {functions} functions, {seconds:.2f} s"
    for name, units in SPACES:
        found = merges(name, units, options.count, options.seed)
        shown = {field: value for field, value in asdict(found).items() if field != "false"}
        yield json.dumps({**shown, "false_merges": len(found.false)})
        for pair in found.false[: options.examples]:
            yield f"  MERGED {pair}"
    for name, units in SPACES:
        apart = splits(name, units, options.rewrites, options.seed + 1)
        yield json.dumps(
            {
                "space": name,
                "units": units,
                "pairs": apart.pairs,
                "false_splits": apart.split,
                "not_equal": apart.not_equal,
            }
        )
        yield f"  {dict(apart.by_identity.most_common(options.examples))}"
        for pair in apart.examples[: options.examples]:
            yield f"  SPLIT {pair}"


if __name__ == "__main__":
    main()
