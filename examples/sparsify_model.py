"""Makes a torch model sparse in its own training loop, and says what became sparse and how well it does.

python examples/sparsify_model.py [EPOCHS]
"""

import sys

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sparserl

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
torch.manual_seed(0)

pictures, labels = load_digits(return_X_y=True)
split = train_test_split(pictures.astype("float32") / 16, labels, test_size=0.25, random_state=0)
x, x_test, y, y_test = map(torch.from_numpy, split)

model = torch.nn.Sequential(
    *(torch.nn.Linear(64, 300), torch.nn.ReLU()),
    *(torch.nn.Linear(300, 100), torch.nn.ReLU()),
    torch.nn.Linear(100, 10),
)
optimizer = torch.optim.Adam(model.parameters())
dense = sum(parameter.numel() for parameter in model.parameters())

# RigL stops rewiring at a share of the run, so it is told how long that is; `set` need not be.
updates = EPOCHS * -(-len(x) // 32)
evolver = sparserl.sparsify(
    model, optimizer, density=0.05, method="rigl", total_updates=updates, update_interval=max(1, updates // 20)
)
print(evolver)  # which layers became sparse, and why the others did not

for _ in range(EPOCHS):
    for rows in torch.randperm(len(x)).split(32):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        evolver.step()

with torch.no_grad():
    accuracy = (model(x_test).argmax(dim=1) == y_test).float().mean()
kept = sum(parameter.numel() for parameter in model.parameters())
moved = sum(event.kind == "rewire" for event in evolver.events)
print(f"{kept:,} of {dense:,} parameters, {moved} times a layer was rewired, test accuracy {accuracy:.3f}")
