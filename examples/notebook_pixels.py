# %% [markdown]
# # Which pixels a rewiring network reads
#
# A classifier of digits whose input layer has a twentieth of its connections. SET drops the weakest and grows others at
# random; where connections gather is drawn at the end. Each cell runs by itself in an editor that knows `# %%`.

# %%
import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

import sparserl

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 60
torch.manual_seed(0)
pictures, labels = load_digits(return_X_y=True)
x, y = torch.from_numpy(pictures.astype("float32") / 16), torch.from_numpy(labels)

# %%
model = torch.nn.Sequential(torch.nn.Linear(64, 400), torch.nn.ReLU(), torch.nn.Linear(400, 10))
optimizer = torch.optim.Adam(model.parameters())
evolver = sparserl.sparsify(model, optimizer, density=[0.05], method="set", update_interval=50)
print(evolver)


def connections_of_pixels():
    """(8, 8) connections that each pixel has."""
    topology = model[0].topology
    return np.bincount(topology.flat % topology.n_in, minlength=64).reshape(8, 8)


# %%
before, losses = connections_of_pixels(), []
for _ in range(EPOCHS):
    for rows in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        evolver.step()
        losses.append(loss.item())
after = connections_of_pixels()

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
most = max(before.max(), after.max())
for axis, picture, title in (
    (axes[0], pictures.mean(axis=0).reshape(8, 8), "mean picture"),
    (axes[1], before, "connections at first"),
    (axes[2], after, f"after {len(losses):,} updates"),
):
    axis.imshow(picture, cmap="viridis", vmin=0, vmax=most if picture.dtype == int else None)
    axis.set_title(title)
    axis.set_axis_off()
axes[3].semilogy(losses, linewidth=0.7)
axes[3].set(title="training loss", xlabel="update")
figure.savefig("pixels.png", dpi=150)
