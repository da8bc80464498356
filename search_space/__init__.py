"""The space of activation functions: expressions, grammars, keys and modules. It needs torch and numpy only.

>>> from search_space import Activation, Grammar, key, parse
>>> swish = parse("x * sigmoid(beta * x)")
>>> str(Grammar(units=1).decode((0, 0, 0, 10, 0)))
'x + sin(x)'
>>> key(parse("max(x, sigmoid(x))")) == key(parse("max(sigmoid(x), x)"))
True
>>> Activation(swish, channels=16).beta.shape
torch.Size([16])
"""

from search_space.activation import Activation, Maxout, parameter_groups
from search_space.baselines import ALIASES, BASELINES, GATES, KNOWN, MODERN, SETS, Baseline, baseline, name_at
from search_space.compiled import Host, Plan, compile_activations, compile_where_it_pays, host, plan
from search_space.export import TARGETS, code, onnx_bytes
from search_space.expression import Expression, ParseError, parse
from search_space.grammar import Decision, Grammar
from search_space.normal_form import KEY_RULES, canonical, key
from search_space.primitives import BINARY, FUNCTIONS, UNARY, SpaceError, nearest
from search_space.properties import Profile, profile
from search_space.reading import Choices
from search_space.registry import Registered, extended, load_primitives, register
from search_space.remarks import Kept, Surgery
from search_space.sites import SITES, ElementwiseNorm, Gate
from search_space.spaces import SPACES, Space, space
from search_space.surgery import NothingToReplace, replace_activations
from search_space.symmetry import is_own_mirror, mirror
from search_space.trainability import breakdown, preflight

__all__ = [
    "ALIASES",
    "BASELINES",
    "BINARY",
    "FUNCTIONS",
    "GATES",
    "KEY_RULES",
    "KNOWN",
    "MODERN",
    "SETS",
    "SITES",
    "SPACES",
    "TARGETS",
    "UNARY",
    "Activation",
    "Baseline",
    "Choices",
    "Decision",
    "ElementwiseNorm",
    "Expression",
    "Gate",
    "Grammar",
    "Host",
    "Kept",
    "Maxout",
    "NothingToReplace",
    "ParseError",
    "Plan",
    "Profile",
    "Registered",
    "Space",
    "SpaceError",
    "Surgery",
    "baseline",
    "breakdown",
    "canonical",
    "code",
    "compile_activations",
    "compile_where_it_pays",
    "extended",
    "host",
    "is_own_mirror",
    "key",
    "load_primitives",
    "mirror",
    "name_at",
    "nearest",
    "onnx_bytes",
    "parameter_groups",
    "parse",
    "plan",
    "preflight",
    "profile",
    "register",
    "replace_activations",
    "space",
]
