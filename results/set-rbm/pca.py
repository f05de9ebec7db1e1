"""python results/set-rbm/pca.py DATA: what principal components of as many numbers reconstruct. DATA holds tables/."""

import sys
from pathlib import Path

from sklearn.decomposition import PCA

from sparserl.continual.supervised.tables import read_table, table_sequence

for seed in range(3):
    table = read_table("tables/coil20.npz", Path(sys.argv[1]), seed=seed, labelled=False)
    task = table_sequence(table, scaling="none", test_share=0.3333, seed=seed).tasks[0]
    train, test = (part.take(slice(None))[0].numpy() for part in (task.train, task.test))
    for components in (11, 200):
        model = PCA(components, random_state=0).fit(train)
        error = float(((model.inverse_transform(model.transform(test)) - test) ** 2).mean())
        print(seed, components, f"{(components + 1) * train.shape[1]:,} numbers", f"{error:.5f}")
