"""A small transformer that predicts the next character of a text.

searcher launch --task examples/characters.py:train --task-kwargs '{"file": "README.md"}' --objective val_acc \
    --sampler random --n-trials 12 --pool inline
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

LENGTH = 32  # characters that a prediction sees, most


class Block(nn.Module):
    def __init__(self, activation, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.activation = activation(2 * width, dim=-1)  # tensors of shape (batch, length, channels)

    def forward(self, x):
        later = nn.Transformer.generate_square_subsequent_mask(x.shape[1], x.device)
        y = self.first(x)
        x = x + self.attention(y, y, y, attn_mask=later, is_causal=True, need_weights=False)[0]
        return x + self.down(self.activation(self.up(self.second(x))))


def train(activation, report, *, file, width=32, depth=2, steps=60):
    text = Path(file).read_bytes()
    ids = torch.tensor([sorted(set(text)).index(byte) for byte in text], device=report.device)
    windows = ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    kept, held_out = windows[: -len(windows) // 10], windows[-len(windows) // 10 :][:64]  # the end of the text
    embedding, places = nn.Embedding(int(ids.max()) + 1, width), nn.Embedding(LENGTH, width)
    blocks = nn.Sequential(*(Block(activation, width) for _ in range(depth)), nn.LayerNorm(width))
    net = nn.ModuleList([embedding, places, blocks, nn.Linear(width, int(ids.max()) + 1)]).to(report.device)

    def scores(x):
        return net[3](blocks(embedding(x) + places.weight))

    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    for step in range(1, steps + 1):
        batch = kept[torch.randint(len(kept), (32,)).to(report.device)]
        loss = F.cross_entropy(scores(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step, train_nll=loss.item())
    with torch.no_grad():
        found, wanted = scores(held_out[:, :-1]).flatten(0, 1), held_out[:, 1:].flatten()
    right = (found.argmax(1) == wanted).float().mean()
    return {"val_nll": F.cross_entropy(found, wanted).item(), "val_acc": right.item()}


train.metrics = {"val_nll": ("minimize", "nats"), "val_acc": "maximize", "train_nll": ("minimize", "nats")}
train.steps = 60
