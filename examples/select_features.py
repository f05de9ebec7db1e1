"""Which features of a table matter: chosen by sparse networks, by an F-test of each feature, and by chance.

python examples/select_features.py [EPOCHS]
"""

import sys

import numpy as np
from sklearn.datasets import make_classification
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

from sparserl.estimators import SparseFeatureSelector

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
KEPT = 20

# Features of equal variance: 20 tell the classes apart, 480 are noise.
x, y = make_classification(
    600, 500, n_informative=20, n_redundant=0, n_classes=2, class_sep=2.0, shuffle=False, random_state=0
)
x = StandardScaler().fit_transform(x)


def accuracy(features):
    """Of a linear classifier that sees these features alone, mean of five folds."""
    return cross_val_score(LogisticRegression(), x[:, features], y, cv=5).mean()


chance = np.random.default_rng(0).permutation(500)[:KEPT]
chosen = {"chance": chance, "F-test": np.argsort(-f_classif(x, y)[0])[:KEPT]}
for method in ("attribution", "quickselection"):
    selector = SparseFeatureSelector(KEPT, method=method, epochs=EPOCHS, random_state=0).fit(x, y)
    chosen[method] = selector.get_support(indices=True)
for name, features in chosen.items():
    print(f"{name:<16} {np.sum(features < 20):2d} of 20 found, accuracy {accuracy(features):.3f}")
