"""Regression on a table of numbers: the diabetes data of scikit-learn (442 patients, 10 measurements).

searcher launch --task examples/diabetes.py:train --sampler random --n-trials 12 --pool inline
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn


def parts():
    """Return (x, y) of the training part and of the validation part, both brought to mean 0 and variance 1."""
    x, y = (torch.tensor(array, dtype=torch.float32) for array in load_diabetes(return_X_y=True))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))  # the same split for every seed
    x, y = x[order], y[order, None]
    x, y = (x - x[:300].mean(0)) / x[:300].std(0), (y - y[:300].mean()) / y[:300].std()
    return (x[:300], y[:300]), (x[300:], y[300:])


def train(activation, report, *, width=32, learning_rate=0.01):
    (x, y), (x_val, y_val) = parts()
    net = nn.Sequential(
        *(nn.Linear(10, width), activation(width)),
        *(nn.Linear(width, width), activation(width)),
        nn.Linear(width, 1),
    ).to(report.device)
    x, y, x_val, y_val = (t.to(report.device) for t in (x, y, x_val, y_val))
    optimizer = torch.optim.AdamW(net.parameters(), learning_rate, weight_decay=0.1)
    for epoch in range(1, 21):
        for batch in torch.randperm(len(x)).to(report.device).split(50):
            loss = (net(x[batch]) - y[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            error = (net(x_val) - y_val).square().mean().item()
        report(epoch, val_mse=error)
    return {"val_mse": error, "val_r2": 1 - error / y_val.var().item()}


train.metrics = {"val_mse": "minimize", "val_r2": "maximize"}
train.steps = 20
