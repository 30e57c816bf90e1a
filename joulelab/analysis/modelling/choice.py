"""The choice of a form: which candidates the points can tell apart, and which of those predicts best what it has not
seen. All forms are solved at once from the inner products of their terms, so that hundreds cost what one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from joulelab.analysis.modelling.forms import Form, workload
from joulelab.calibration.integrals import Floats, Ints

SPARE = 2
"""Configurations that a fit needs beyond its coefficients."""
MAX_CONDITION = 1e3
"""Of the weighted design with columns of length 1: beyond it, 0.1 % of noise turns into all of a coefficient."""
ALONE = 1 - 1e-6
"""Beyond this leverage a coefficient hangs on one configuration."""
INNER_FOLDS, ROUNDS = 5, 2
LEAST_LENGTHS = 4
"""Prompt lengths that it takes to hold out whole ones."""
EXACT = 1e-7
"""Below this no relative error counts."""
RIDGE = 1e-10
"""Keeps a fold solvable that has lost what tells two terms apart, and well above what a processor's rounding decides;
columns have length 1."""

Bools = NDArray[np.bool_]


class Bench:
    """Forms of one target laid out beside each other for points with a `y`: their terms divided by it [points, terms],
    and the forms, in groups of as many terms, as columns of those [forms, k].
    """

    def __init__(self, forms: Sequence[Form], points: pd.DataFrame) -> None:
        terms = list(dict.fromkeys(term for form in forms for term in form.terms))
        work, y = workload(points), points["y"].to_numpy()
        weighted = np.stack([term.count(work) for term in terms], axis=1) / y[:, None]
        length = np.linalg.norm(weighted, axis=0)
        self.X = weighted / np.where(length > 0, length, 1.0)
        place = {term: i for i, term in enumerate(terms)}
        self.groups: list[tuple[list[Form], Ints, Bools]] = []
        for k in sorted({len(form.terms) for form in forms}):
            own = [form for form in forms if len(form.terms) == k]
            columns = np.array([[place[term] for term in form.terms] for form in own])
            self.groups.append((own, columns, np.array([form.signed for form in own])))

    @property
    def forms(self) -> list[Form]:
        return [form for forms, _, _ in self.groups for form in forms]

    def supported(self) -> Iterator[Form]:
        """The forms that the points can support: as `refusal` says of each."""
        gram = self.X.T @ self.X
        for forms, columns, _ in self.groups:
            if len(self.X) >= columns.shape[1] + SPARE:
                good = self._told_apart(gram, columns)
                yield from (form for form, fine in zip(forms, good, strict=True) if fine)

    def _told_apart(self, gram: Floats, columns: Ints) -> Bools:
        own = gram[columns[:, :, None], columns[:, None, :]]
        values, vectors = np.linalg.eigh(own)
        good: Bools = values[:, 0] * MAX_CONDITION**2 > values[:, -1]
        roots = vectors[good] / np.sqrt(values[good])[:, None, :]
        leverages = (((self.X[:, own] @ root) ** 2).sum(axis=1) for own, root in zip(columns[good], roots, strict=True))
        good[good] = [leverage.max() <= ALONE for leverage in leverages]
        return good

    def errors(self, fold: Ints) -> Floats:
        """The relative errors [forms, points] of held-out points, forms in the order of `forms`; `fold` [points] says
        which points are held out together.
        """
        found = [np.empty((len(forms), len(self.X))) for forms, _, _ in self.groups]
        for k in np.unique(fold):
            kept, held = self.X[fold != k], self.X[fold == k]
            gram, right = kept.T @ kept, kept.sum(axis=0)
            for errors, (_, columns, signed) in zip(found, self.groups, strict=True):
                beta = nonnegative(gram, right, columns, signed)
                errors[:, fold == k] = np.abs(np.einsum("nfk,fk->fn", held[:, columns], beta) - 1)
        return np.concatenate(found)


def nonnegative(gram: Floats, right: Floats, columns: Ints, signed: Bools) -> Floats:
    """The least-squares coefficients [forms, k] of forms that are `columns` [forms, k] of a design with inner products
    `gram` and `right`. Those that come out negative and may not are left out, the worst first.
    """
    unit = np.eye(columns.shape[1])
    own, target = gram[columns[:, :, None], columns[:, None, :]] + RIDGE * unit, right[columns]
    used = np.ones_like(signed)
    for _ in range(columns.shape[1]):
        both = used[:, :, None] & used[:, None, :]
        beta = np.linalg.solve(np.where(both, own, unit), np.where(used, target, 0.0)[..., None])[..., 0]
        wrong = np.where(signed, 0.0, beta)
        if not (wrong < 0).any():
            break
        worst = (wrong == wrong.min(axis=1, keepdims=True)) & (wrong < 0)
        used &= ~worst
    return np.asarray(np.where(used, beta, 0.0))


def supported(forms: Sequence[Form], points: pd.DataFrame) -> list[Form]:
    """The forms that the points can support."""
    return list(Bench(forms, points).supported())


def choose(forms: Sequence[Form], points: pd.DataFrame) -> Form:
    """The form that fits the fewest numbers among those that err no more than the best one, held out.

    More is what is beyond one standard error of the difference, point by point (Breiman et al., Classification and
    Regression Trees, 3.4.3).
    """
    bench = Bench(forms, points)
    errors = np.mean([bench.errors(_by_prompt(points, seed)) for seed in range(ROUNDS)], axis=0)
    mean = errors.mean(axis=1)
    more = errors - errors[mean.argmin()]
    doubt = more.std(axis=1, ddof=1) / np.sqrt(len(points)) + EXACT
    good = np.flatnonzero(more.mean(axis=1) <= doubt)
    return bench.forms[min(good, key=lambda i: (bench.forms[i].fitted, mean[i]))]


def _by_prompt(points: pd.DataFrame, seed: int) -> Ints:
    """Whole prompt lengths held out, where there are some: a table of the measured ones says nothing of others."""
    lengths, which = np.unique(points["prompt"], return_inverse=True)
    if len(lengths) < LEAST_LENGTHS:
        return folds(len(points), INNER_FOLDS, seed)
    return folds(len(lengths), INNER_FOLDS, seed)[which]


def folds(n: int, k: int, seed: int) -> Ints:
    """A fold number for each of n things, in random order and of equal frequency."""
    return np.random.default_rng(seed).permutation(n) % k


def refusal(form: Form, points: pd.DataFrame) -> str | None:
    """Why the points cannot support the form, or None."""
    X, y = form.design(points), points["y"].to_numpy()
    n, k = X.shape
    if n < k + SPARE:
        return f"{n} configurations cannot support {k} coefficients: {k + SPARE} are needed"
    weighted = X / y[:, None]
    length = np.linalg.norm(weighted, axis=0)
    condition = np.linalg.cond(weighted / np.where(length > 0, length, 1))
    if not condition < MAX_CONDITION:
        return f"the configurations cannot tell {', '.join(form.names)} apart (condition number {condition:.2g})"
    leverage = (np.linalg.qr(weighted)[0] ** 2).sum(axis=1)
    if leverage.max() > ALONE:
        alone = points.iloc[int(leverage.argmax())]
        where = f"prompt {alone['prompt']:g}, output {alone['output']:g}"
        return f"a coefficient hangs on one configuration alone ({where})"
    return None
