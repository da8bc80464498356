"""Surgery on the networks of timm and transformers, without their weights, checked on numbers.

It runs where the extra `zoo` is installed. `python -m tests.search_space.test_zoo` writes the table of
docs/search-space.md.
"""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from search_space import Surgery, replace_activations
from tests.support import ROOT

OTHER = "sin(x) + beta * x"  # equal to none of what is replaced
GELU = "0.5 * x * (1 + erf(x / 2^0.5))"
TANH_GELU = "0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x^3)))"
EQUAL = {  # to the classes that are replaced
    "ReLU": "max(x, 0)",
    "ReLU6": "min(max(x, 0), 6)",
    "SiLU": "x * sigmoid(x)",
    "SiLUActivation": "x * sigmoid(x)",
    "Hardswish": "x * min(max(x + 3, 0), 6) / 6",
    "GELU": GELU,
    "GELUActivation": GELU,
    "NewGELUActivation": TANH_GELU,
    "QuickGELUActivation": "x * sigmoid(1.702 * x)",
}
# Operations of torch that are activations and nothing else, and those that gates and heads are too.
PLAIN = ("relu", "gelu", "silu", "hardswish", "hardtanh", "elu", "leaky_relu", "mish")
GATES = ("sigmoid", "hardsigmoid", "tanh")

pytestmark = pytest.mark.filterwarnings("ignore")  # what these packages warn of is theirs


@dataclass(frozen=True)
class Row:
    """An architecture.

    Attributes:
        activations: how many calls of activations there are in its definition, of each class.
        kept: gates and output heads.
        calls: activations that are calls in a forward, and so stay.
        match: what the advice comes to where there are calls: the modules that are meant.
        last: how many of the activations have their channels in the last dimension.
    """

    package: str
    name: str
    build: Callable[[], tuple[nn.Module, Any]]
    activations: dict[str, int]
    kept: int = 0
    calls: int = 0
    match: str = ""
    last: int = 0


def timm_net(name: str, size: int, **options: Any) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        model = import_module("timm").create_model(name, pretrained=False, num_classes=10, **options)
        return model, torch.randn(2, 3, size, size)

    return build


BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
WORDS = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def transformer(kind: str, task: str, example: str = "words", **options: Any) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        package = import_module("transformers")
        model = getattr(package, kind + task)(getattr(package, kind + "Config")(**options))
        words = torch.randint(3, 99, (2, 11))
        both = {"input_ids": words, "decoder_input_ids": words}
        inputs = {"words": words, "both": both, "images": torch.randn(2, 3, 32, 32), "sound": torch.randn(2, 800)}
        return model, inputs[example]

    return build


ROWS = [
    Row("timm", "resnet18", timm_net("resnet18", 64), {"ReLU": 17}),
    Row("timm", "seresnet18", timm_net("seresnet18", 64), {"ReLU": 25}, kept=8),
    Row("timm", "densenet121", timm_net("densenet121", 64), {"ReLU": 121}),
    Row("timm", "regnety_002", timm_net("regnety_002", 64), {"ReLU": 53}, kept=13),
    Row("timm", "mobilenetv2_035", timm_net("mobilenetv2_035", 64), {"ReLU6": 35}),
    Row("timm", "mobilenetv3_small_050", timm_net("mobilenetv3_small_050", 64), {"Hardswish": 19, "ReLU": 14}, kept=9),
    Row("timm", "efficientnet_b0", timm_net("efficientnet_b0", 64), {"SiLU": 49}, kept=16),
    Row("timm", "convnext_atto", timm_net("convnext_atto", 64), {"GELU": 12}),
    Row("timm", "vit_tiny_patch16_224", timm_net("vit_tiny_patch16_224", 64, img_size=64), {"GELU": 12}, last=12),
    Row(
        *("timm", "swin_tiny_patch4_window7_224"),
        *(timm_net("swin_tiny_patch4_window7_224", 224), {"GELU": 12}),
        last=12,
    ),
    Row("timm", "mixer_s32_224", timm_net("mixer_s32_224", 224), {"GELU": 16}, last=16),
    Row("timm", "levit_128s", timm_net("levit_128s", 224), {"Hardswish": 25}, last=22),
    Row("transformers", "BERT", transformer("Bert", "Model", **BODY, **WORDS), {"GELUActivation": 2}, kept=1, last=2),
    Row(
        *("transformers", "DistilBERT"),
        transformer("DistilBert", "ForSequenceClassification", dim=32, n_layers=2, n_heads=4, hidden_dim=48, **WORDS),
        {"GELUActivation": 2},
        calls=1,
        match="*.ffn.activation",
        last=2,
    ),
    Row(
        *("transformers", "GPT-2"),
        *(transformer("GPT2", "LMHeadModel", n_embd=32, n_layer=2, n_head=4, **WORDS), {"NewGELUActivation": 2}),
        last=2,
    ),
    Row("transformers", "Llama", transformer("Llama", "ForCausalLM", **BODY, **WORDS), {"SiLUActivation": 2}, last=2),
    Row(
        *("transformers", "Mixtral"),
        transformer("Mixtral", "ForCausalLM", **BODY, **WORDS, num_key_value_heads=2, num_local_experts=4),
        {"SiLUActivation": 2},
    ),
    Row(
        *("transformers", "T5"),
        transformer(
            *("T5", "ForConditionalGeneration", "both"),
            d_model=32,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            d_kv=8,
            feed_forward_proj="gated-gelu",
            **WORDS,
        ),
        {"NewGELUActivation": 4},
        last=4,
    ),
    Row(
        *("transformers", "ViT"),
        transformer("ViT", "ForImageClassification", "images", **BODY, image_size=32, patch_size=8),
        {"GELUActivation": 2},
        last=2,
    ),
    Row(
        *("transformers", "CLIP"),
        transformer("CLIPVision", "Model", "images", **BODY, image_size=32, patch_size=8),
        {"QuickGELUActivation": 2},
        last=2,
    ),
    Row(
        *("transformers", "Swin"),
        transformer(
            *("Swin", "ForImageClassification", "images"),
            image_size=32,
            patch_size=4,
            embed_dim=16,
            window_size=4,
            depths=[1, 1],
            num_heads=[2, 2],
        ),
        {"GELUActivation": 2},
        last=2,
    ),
    Row(
        *("transformers", "wav2vec 2.0"),
        transformer(
            *("Wav2Vec2", "Model", "sound"),
            **BODY,
            conv_dim=(8, 8),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        ),
        {"GELUActivation": 5},
        last=2,
    ),
]


def output(model: nn.Module, example: Any) -> list[Tensor]:
    """Return the tensors that the model makes in eval mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        made = model.eval()(**example) if isinstance(example, dict) else model(example)
    values = made.values() if isinstance(made, dict) else [made]
    return [value for value in values if isinstance(value, Tensor)]


def operations(model: nn.Module, example: Any) -> Counter[str]:
    """Return how often the model runs each operation of torch, as torch's profiler counts."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        output(model, example)
    return Counter({e.key.removeprefix("aten::").rstrip("_"): e.count for e in seen.key_averages()})


def made(row: Row) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model, example = row.build()
    for parameter in model.parameters():  # those that begin at zero, or nearly, would hide what is before them
        if float(parameter.abs().max()) < 1e-3:
            nn.init.normal_(parameter, std=0.1)
    return model.eval(), example


def swapped(row: Row, model: nn.Module, example: Any, expression: str, **options: Any) -> tuple[nn.Module, Surgery]:
    new = copy.deepcopy(model)
    return new, replace_activations(new, expression, example, **options)


def check(row: Row) -> Surgery:
    """Replace by the same functions, by others, and by zero, and compare what comes out."""
    model, example = made(row)
    before = output(model, example)
    new, report = swapped(row, model, example, OTHER)
    assert Counter(old for _, old, _ in report.replaced) == row.activations, report
    assert all(channels > 1 for _, _, channels in report.replaced) and len(report.last) == row.last, report
    assert (len(report.kept), len(report.unreachable), report.in_place) == (row.kept, row.calls, ()), report
    if row.match:  # the advice of `searcher launch`, followed
        new, report = swapped(row, model, example, OTHER, match=row.match)
        assert Counter(old for _, old, _ in report.replaced) == row.activations, report
    after = output(new, example)
    assert any(not torch.allclose(one, other, atol=1e-4) for one, other in zip(before, after, strict=True))
    same = copy.deepcopy(model)
    for kind in row.activations:
        places = {name for name, old, _ in report.replaced if old == kind}
        replace_activations(same, EQUAL[kind], example, match=lambda name, _, places=places: name in places)
    for one, other in zip(before, output(same, example), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    left = operations(swapped(row, model, example, "0 * x", match=row.match or None)[0], example)
    assert sum(left[name] for name in PLAIN) == row.calls and sum(left[name] for name in GATES) == row.kept, left
    return report


def needs(package: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        pytest.importorskip(
            package, reason=f"{package} cannot be imported; install the extra zoo", exc_type=ImportError
        )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_activation_is_replaced_and_nothing_else(row: Row) -> None:
    """Row S3: checked against counts of the definitions, against the outputs, and against torch's profiler."""
    needs(row.package)
    check(row)


def line(row: Row) -> str:
    """Return the row of the table in the documentation."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in row.activations.items())
    stays = f"{row.kept} gates" if row.kept > 1 else "the pooler's Tanh, an output head" if row.kept else ""
    if row.calls:
        stays = f"a call of `F.relu` in its forward: refused by a search without `--match '{row.match}'`"
    where = "last" if row.last == sum(row.activations.values()) else f"1; last: {row.last}" if row.last else "1"
    return f"| {row.package} | {row.name} | {kinds} | {where} | {stays} |"


def table() -> str:
    head = ["| package | architecture | replaced | channels in dimension | stays |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *map(line, ROWS)])


def test_the_table_of_the_documentation_is_what_is_checked() -> None:
    """If not: write it anew with `python -m tests.search_space.test_zoo`."""
    text = (ROOT / "docs" / "search-space.md").read_text()
    assert table() in text
    assert len([row for row in ROWS if row.package == "timm"]) >= 12
    assert len([row for row in ROWS if row.package == "transformers"]) >= 10
    assert re.search(r"timm \d+\.\d+\.\d+, transformers \d+\.\d+\.\d+, torch \d+\.\d+\.\d+", text)


if __name__ == "__main__":
    for each in ROWS:
        check(each)
    versions = ", ".join(f"{package} {version(package)}" for package in ("timm", "transformers", "torch"))
    sys.stdout.write(f"Checked with {versions}.\n\n{table()}\n")
