"""The paper's controller: a recurrent network that takes one decision after the other, trained with PPO.

Ramachandran, Zoph and Le 2017 (arXiv 1710.05941, section 2) describe an RNN whose predictions are fed back, trained
with proximal policy optimisation on the validation accuracy, with an exponential moving average of rewards as baseline,
on batches of candidates. Details that they do not give are taken from NASNet (Zoph et al. 2018, arXiv 1707.07012,
appendix A.2): one layer of 100 LSTM units, weights uniform in +-0.1, baseline decay 0.95. NASNet's learning rate
(0.00035) and entropy weight (0.00001) are for 20,000 children; the defaults here were chosen on a synthetic reward to
learn within a few hundred. The clip of 0.2 is from Schulman et al. 2017 (arXiv 1707.06347, table 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_space import Choices, Grammar
from searcher.samplers.contract import Observation, Pending, Rewards, generator

MAX_HIDDEN = 10_000  # units; with more, the controller takes gigabytes of memory


class Controller(nn.Module):
    """A distribution over choices: one softmax for each decision, conditioned on all decisions before it."""

    def __init__(self, grammar: Grammar, hidden: int) -> None:
        super().__init__()
        options = [len(decision.options) for decision in grammar.decisions]
        self.hidden = hidden
        self.cell = nn.LSTMCell(hidden, hidden)
        self.start = nn.Parameter(torch.empty(1, hidden))
        self.embeddings = nn.ModuleList(nn.Embedding(n, hidden) for n in options)
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in options)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    @torch.no_grad()
    def sample(self, source: torch.Generator) -> Choices:
        """Return choices drawn from the distribution."""
        state: tuple[Tensor, Tensor] | None = None
        token, drawn = self.start, []
        for embedding, head in zip(self.embeddings, self.heads, strict=True):
            state = self.cell(token, state)
            choice = torch.multinomial(head(state[0]).softmax(dim=1), 1, generator=source)[:, 0]
            token = embedding(choice)
            drawn.append(int(choice))
        return tuple(drawn)

    def evaluate(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability `(n,)` of choices `(n, decisions)`, and the mean entropy of a decision `(n,)` in
        nats."""
        state: tuple[Tensor, Tensor] | None = None
        token = self.start.expand(len(choices), -1)
        log_prob, entropy = torch.zeros(len(choices)), torch.zeros(len(choices))
        for at, (embedding, head) in enumerate(zip(self.embeddings, self.heads, strict=True)):
            state = self.cell(token, state)
            log_p = head(state[0]).log_softmax(dim=1)
            log_prob = log_prob + log_p.gather(1, choices[:, at, None])[:, 0]
            entropy = entropy - (log_p.exp() * log_p).sum(dim=1)
            token = embedding(choices[:, at])
        return log_prob, entropy / choices.shape[1]


def clipped_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Return PPO's surrogate (Schulman et al. 2017, equation 7), negated: a scalar, from tensors of shape `(n,)`.

    The ratio of probabilities is clipped to `1 +- clip`; the advantage is not.
    """
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


class RnnSampler:
    """PPO over the grammar's decisions, with one update for every `batch` judged trials, in the order of `tell`.

    The denominator of the ratio is the policy before the update. With several workers, a batch can have a proposal of
    a policy that is one or two updates older. It is treated as if drawn from the newer policy, so that only the trials
    need to be stored.

    Args:
        batch: number of trials for one update (NASNet: 20).
        learning_rate: learning rate of Adam (NASNet: 0.00035).
        entropy_weight: weight of the entropy bonus (NASNet: 0.00001).
        epochs: passes over the batch in one update.
        clip: how far the ratio may change in one update.
        baseline_decay: decay of the moving average of rewards (NASNet: 0.95).
        hidden: number of LSTM units (NASNet: 100).
    """

    def __init__(
        self,
        *,
        grammar: Grammar,
        seed: int,
        batch: int = 10,
        learning_rate: float = 0.002,
        entropy_weight: float = 0.8,
        epochs: int = 4,
        clip: float = 0.2,
        baseline_decay: float = 0.95,
        hidden: int = 100,
    ) -> None:
        for name, value in {"batch": batch, "epochs": epochs, "hidden": hidden, "learning_rate": learning_rate}.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, not {value!r}")
        if hidden > MAX_HIDDEN:
            raise ValueError(f"hidden must be at most {MAX_HIDDEN}, not {hidden!r}")
        if not 0 < clip < 1 or not 0 <= baseline_decay < 1:
            raise ValueError(
                f"clip must be in (0, 1) and baseline_decay in [0, 1), not {clip!r} and {baseline_decay!r}"
            )
        self._seed = seed
        self._batch, self._epochs, self._clip = batch, epochs, clip
        self._entropy_weight, self._baseline_decay = entropy_weight, baseline_decay
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._controller = Controller(grammar, hidden)
        self._optimizer = torch.optim.Adam(self._controller.parameters(), lr=learning_rate, eps=1e-5)
        self._told: list[tuple[Choices, float]] = []
        self._baseline: float | None = None
        self._rewards = Rewards()

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices:  # noqa: ARG002
        source = torch.Generator().manual_seed(generator(self._seed, number).getrandbits(63))
        return self._controller.sample(source)

    def tell(self, observation: Observation) -> None:
        if observation.choices is None:
            return
        self._told.append((observation.choices, self._rewards.of(observation)))
        if len(self._told) == self._batch:
            self._update(torch.tensor([c for c, _ in self._told]), torch.tensor([r for _, r in self._told]))
            self._told.clear()

    def _update(self, choices: Tensor, rewards: Tensor) -> None:
        """Do one PPO update with choices `(n, decisions)` and rewards `(n,)`."""
        mean = float(rewards.mean())
        baseline = mean if self._baseline is None else self._baseline
        self._baseline = self._baseline_decay * baseline + (1 - self._baseline_decay) * mean
        # The division by the spread makes equal steps for rewards that differ by 0.5 and by 0.005.
        advantage = (rewards - baseline) / (rewards.std(correction=0) + 1e-3)
        with torch.no_grad():
            old_log_prob, _ = self._controller.evaluate(choices)
        for _ in range(self._epochs):
            log_prob, entropy = self._controller.evaluate(choices)
            loss = clipped_loss(log_prob, old_log_prob, advantage, self._clip) - self._entropy_weight * entropy.mean()
            self._optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self._controller.parameters(), 0.5)
            self._optimizer.step()
