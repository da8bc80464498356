"""Templates of exported files (search_space/export.py), for `str.format`."""

from __future__ import annotations

from collections.abc import Mapping

_SQRT = '''

def _sqrt(a: {0}) -> {0}:
    """Return the square root. Its slope at 0 is infinite, and set to 0 here."""
    zero = a == 0
    return {1}
'''
_WITHIN = '''

def _within(number: float, x: Tensor) -> float:
    """Return the number, or infinity if the type of x cannot hold it."""
    return math.copysign(math.inf, number) if abs(number) > torch.finfo(x.dtype).max else number
'''
_ABS = '''

def _abs(a: jax.Array) -> jax.Array:
    """Return the absolute value. Its slope at 0 is 0; jnp.abs has the slope 1 there."""
    return a * jnp.sign(a)
'''
_SINC = '''

def _sinc(a: Tensor) -> Tensor:
    """Return sin(a)/a, and 1 at 0. Near 0 the Taylor series is used, which has all derivatives there."""
    if a.dtype in (torch.bfloat16, torch.float16):
        return _sinc(a.float()).to(a.dtype)
    near = a.abs() < 1
    square = torch.where(near, a * a, 0.0)
    series = torch.ones_like(a)
    for k in range(9, 0, -1):
        series = 1 - square / (2 * k * (2 * k + 1)) * series
    return torch.where(near, series, torch.sin(a) / torch.where(near, 1.0, a))
'''
_JAX_SINC = '''

def _sinc(a: jax.Array) -> jax.Array:
    """Return sin(a)/a, and 1 at 0. Near 0 the Taylor series is used, which has all derivatives there."""
    dtype = a.dtype
    a = jnp.asarray(a, jnp.promote_types(dtype, jnp.float32))
    near = jnp.abs(a) < 1
    square = jnp.where(near, a * a, 0.0)
    series = jnp.ones_like(a)
    for k in range(9, 0, -1):
        series = 1 - square / (2 * k * (2 * k + 1)) * series
    return jnp.asarray(jnp.where(near, series, jnp.sin(a) / jnp.where(near, 1.0, a)), dtype)
'''
_SYMPY_SINC = '''

def _sinc(a: sp.Expr) -> sp.Expr:
    """Return sin(a)/a; at 0, the start of its Taylor series, which has the same value and seven derivatives there."""
    return sp.Piecewise((sp.sin(a) / a, sp.Ne(a, 0)), (1 - a**2 / 6 + a**4 / 120 - a**6 / 5040, True))
'''
_PRELU = '''

def _prelu(a: Tensor, p: Tensor) -> Tensor:
    """Return max(a, 0) + p * min(a, 0). F.prelu needs channels at dimension 1, and equal dtypes under autocast."""
    if torch.is_autocast_enabled(a.device.type) or (a.dim() < 2 and p.numel() > 1):
        return torch.relu(a) + p * F.hardtanh(a, -math.inf, 0)
    dim = a.dim() - p.dim() if p.numel() > 1 else 1
    if dim != 1:
        return F.prelu(a.movedim(dim, 1), p.flatten()).movedim(1, dim)
    return F.prelu(a, p.flatten())
'''
_PLACED = '''

def _placed(beta: ArrayLike | tuple[float, ...], x: jax.Array, dim: int) -> jax.Array:
    """Return a parameter with the dtype of x, and in a shape that broadcasts with x."""
    beta = jnp.asarray(beta, x.dtype)
    if jnp.size(beta) == 1:
        return beta.reshape(())
    if beta.ndim != 1:
        return beta
    dim = dim if x.ndim != 1 else 0
    if not -x.ndim <= dim < x.ndim or x.shape[dim] != jnp.size(beta):
        raise ValueError(f"dimension {dim} must be the {jnp.size(beta)} channels, not {tuple(x.shape)}")
    return beta.reshape(beta.shape + (1,) * ((x.ndim - 1 - dim) % x.ndim))
'''
HELPERS: Mapping[str, Mapping[str, str]] = {
    "torch": {
        "_prelu": _PRELU,
        "_sinc": _SINC,
        "_sqrt": _SQRT.format("Tensor", "torch.where(zero, 0.0, torch.sqrt(torch.where(zero, 1.0, a)))"),
        "_within": _WITHIN,
    },
    "jax": {
        "_abs": _ABS,
        "_placed": _PLACED,
        "_sinc": _JAX_SINC,
        "_sqrt": _SQRT.format("jax.Array", "jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, a)))"),
    },
    "sympy": {"_sinc": _SYMPY_SINC},
}

FILE = '''\
"""{title}: {about}

{formula}

It needs {needs} only. It was made from the expression with the key {key}.
"""

{imports}
{helpers}{definition}'''
TORCH_CLASS = '''

class {name}(nn.Module):
    """Apply {title} to every element.

    {inner}

    Args:
        channels: the size of dimension `dim` of the input. Each parameter has one value per channel; with 1, all
            channels share each parameter.
        inplace: accepted, because timm and others pass it, and ignored.
        dim: the dimension of the channels: 1 for `(batch, channels, ...)`, -1 for `(batch, ..., channels)`.

    Shapes: input and output have the same shape, dtype and device; each parameter is `(channels,)`.

    {example}
    """

    def __init__(self, channels: int = {channels}, inplace: bool = False, dim: int = {dim}) -> None:
        super().__init__()
        self.channels, self.dim = channels, dim
{parameters}
    def forward(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise TypeError(f"a floating-point input is needed, not {{x.dtype}}; convert it: x.float()")
{body}
'''
_TORCH_GATE = '''

class {name}Gate(nn.Module):
    """Return f(a) * b, where f is {name}, a the first half of the channels and b the second half.

    Args:
        channels: the number of channels of the output; the layer before must make twice as many.
        dim: the dimension of the channels, as in {name}.

    Shapes: `(batch, 2 * channels, ...)` to `(batch, channels, ...)`.
    """

    def __init__(self, channels: int = {width}, dim: int = {dim}) -> None:
        super().__init__()
        self.function, self.channels, self.dim = {name}(channels, dim=dim), channels, dim

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[self.dim] != 2 * self.channels:
            raise ValueError(f"dimension {{self.dim}} must be {{2 * self.channels}} channels, not {{tuple(x.shape)}}")
        a, b = x.chunk(2, self.dim)
        return self.function(a) * b
'''
_TORCH_NORM = '''

class {name}Norm(nn.Module):
    """Return weight * f(x) + bias, where f is {name}, in the place of a normalisation.

    Args:
        channels: the size of dimension `dim` of the input. All channels share the parameters of f.
        dim: the dimension of the channels, as in {name}.

    Shapes: input and output have the same shape; weight and bias are `(channels,)`.
    """

    def __init__(self, channels: int = {width}, dim: int = {dim}) -> None:
        super().__init__()
        self.function, self.channels, self.dim = {name}(), channels, dim
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[self.dim] != self.channels:
            raise ValueError(f"dimension {{self.dim}} must be the {{self.channels}} channels, not {{tuple(x.shape)}}")
        shape = (self.channels,) + (1,) * ((x.dim() - 1 - self.dim) % x.dim())
        weight, bias = self.weight.to(x.dtype).reshape(shape), self.bias.to(x.dtype).reshape(shape)
        return torch.addcmul(bias, weight, self.function(x))
'''
TORCH_SITES: Mapping[str, str] = {"activation": "", "gate": _TORCH_GATE, "norm": _TORCH_NORM}
LATEX_SITES: Mapping[str, str] = {
    "activation": "",
    "gate": r", \quad g(a, b) = f(a) \cdot b",
    "norm": r", \quad g(x) = w \cdot f(x) + c",
}
# What the first line of a file says about the place of the function.
ABOUT_SITES: Mapping[str, str] = {
    "activation": "",
    "gate": ", for a gate f(a) * b",
    "norm": ", for weight * f(x) + bias in the place of a norm",
}
TORCH_START = """\
        # Exclude these parameters from weight decay, which would pull them towards 0.
"""
TORCH_PARAMETER = """\
        self.{symbol} = nn.Parameter(torch.tensor({start}).expand(channels).clone())
"""
TORCH_BUFFER = """\
        self.register_buffer("{symbol}", torch.tensor({start}).expand(channels).clone())
"""
TORCH_SHAPE = '''
    def _broadcast_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape in which a parameter broadcasts with x. An x of one dimension is read as (channels,)."""
        if self.channels == 1:
            return ()
        dims, dim = x.dim(), self.dim if x.dim() != 1 else 0
        if not -dims <= dim < dims or x.shape[dim] != self.channels:
            raise ValueError(f"dimension {self.dim} must be the {self.channels} channels, not {tuple(x.shape)}")
        return (self.channels,) + (1,) * ((dims - 1 - dim) % dims)
'''
TORCH_EXAMPLE = """\
>>> x = torch.tensor({points}, dtype=torch.float64).reshape({column})
>>> y = torch.tensor({values}, dtype=torch.float64)
>>> torch.allclose({name}()(x.expand({shape})).select({dim}, 0).flatten(), y, equal_nan=True)
True
"""
JAX_FUNCTION = '''

def {name}(
    x: jax.Array,{arguments}
) -> jax.Array:
    """Apply {title} to every element.

    {inner}
{channels_text}    """
    if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise TypeError(f"a floating-point input is needed, not {{jnp.result_type(x)}}; convert it to one")
{casts}{body}
'''
JAX_CHANNELS = """
    A parameter is a number, or has one value per channel: `(channels,)`. Do not apply weight decay to it. `dim` is the
    dimension of the channels: -1 for `(batch, ..., channels)`, 1 for `(batch, channels, ...)`.
"""
CARD = """\
# {title}

$${latex}$$

* expression: `{text}`, key `{key}`
* parameters: {symbols}; values: {values}

Save this module as `{title}.py`. Then:

```python
from {title} import {name}

y = {name}(channels={width})(torch.randn({shape}))
```

```python
{module}```
"""
