"""An implicit representation of a picture: a network that maps a place to its brightness, trained by the Laplacian.

The network sees only the Laplacian of the picture, and the brightness at its edge (Sitzmann et al. 2020, arXiv
2006.09661, solve the same problem). So the loss has second derivatives of the activation; those of ReLU are 0.

searcher launch --task examples/picture.py:train --sampler random --n-trials 12 --pool inline
"""

import math

import torch
from torch import nn


def picture(places):
    """Return the brightness at places (n, 2) in [-1, 1] x [-1, 1]: a bright spot on waves."""
    x, y = places.unbind(1)
    return torch.exp(-4 * (x.square() + y.square())) + 0.3 * torch.sin(3 * x) * torch.cos(2 * y)


def laplacian(values, places):
    """Return the sum of the second derivatives of values (n,) by places (n, 2)."""
    (gradient,) = torch.autograd.grad(values.sum(), places, create_graph=True)
    seconds = (torch.autograd.grad(gradient[:, i].sum(), places, create_graph=True)[0][:, i] for i in (0, 1))
    return sum(seconds)


def train(activation, report, *, width=32, steps=80, points=16):
    side = torch.linspace(-1, 1, points, device=report.device)
    places = torch.cartesian_prod(side, side).requires_grad_()
    target = laplacian(picture(places), places).detach()
    edge = (places.abs().amax(1) == 1).detach()
    seen = torch.cartesian_prod(side[:-1], side[:-1]) + 1 / (points - 1)  # between the places of the training
    net = nn.Sequential(
        *(nn.Linear(2, width), activation(width)),
        *(nn.Linear(width, width), activation(width)),
        nn.Linear(width, 1),
    ).to(report.device)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(1, steps + 1):
        values = net(places)[:, 0]
        loss = (laplacian(values, places) - target).square().mean() / target.square().mean()
        loss = loss + (values - picture(places))[edge].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            with torch.no_grad():
                error = (net(seen)[:, 0] - picture(seen)).square().mean().item()
            report(step, val_psnr=-10 * math.log10(max(error, 1e-12)))
    return {"val_psnr": -10 * math.log10(max(error, 1e-12))}


train.metrics = {"val_psnr": ("maximize", "decibels")}
train.steps = 80
