"""A training script that had nothing to do with this program, and the lines that make it a task.

searcher launch --task examples/script.py:main --objective val_error --direction minimize \
    --sampler random --n-trials 12 --pool inline

Before:
    def main(width=24, epochs=15):
        ...
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)
        ...
            print(f"epoch {epoch}: {wrong:.4f}")

    if __name__ == "__main__":
        main()
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main(activation=lambda _: nn.ReLU(), width=24, epochs=15):  # 1. takes the activation
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32) / 16
    y = torch.tensor(digits.target)
    loader = DataLoader(TensorDataset(x[:1000], y[:1000]), batch_size=50, shuffle=True)
    model = nn.Sequential(
        *(nn.Linear(64, width), activation(width), nn.Linear(width, 10)),  # 2. uses it
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            criterion(model(inputs), labels).backward()
            optimizer.step()
        with torch.no_grad():
            wrong = (model(x[1000:]).argmax(1) != y[1000:]).float().mean().item()
        print(f"epoch {epoch}: {wrong:.4f}")
    return wrong  # 3. returns what is searched for


if __name__ == "__main__":
    main()
