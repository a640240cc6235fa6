"""Our figures beside the published ones: which of them may be compared, and why the others may not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from caffe2torch import preprocess, zoo
from caffe2torch.errors import RetrievalError, ZooError
from caffe2torch.evaluation.published import CIFAR10, Curve, Figure, closest, curves, figures
from caffe2torch.evaluation.run import Evaluation, Side
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.labels import Labels

CLASSES, QUERIES, DATABASE = 10, 10_000, 50_000
CIFAR10_TEXT = f"CIFAR-10, {QUERIES:,} against {DATABASE:,} pictures"
PAPERS_ORDER = (
    "eb74ff0f3542a817c9ad90885580ea733ca64884f1e44ecf9f2e40e37ac54fdb",
    "37d0ed4eb273eb4f002592974f1d5b10e1ec3452b5fef702a8bd01231bc7b192",
)
"""``order_of`` the labels of the papers' test list and training list."""
TELLING = 5
"""Decimals that a published figure must have to tell a model by being equal."""


@dataclass(frozen=True)
class Row:
    """One figure of ours and the published one nearest to it.

    ``differences`` say why the two are not comparable (none: they are), ``notes`` what is unknown or of little weight.
    ``elsewhere`` says that the pictures are not those of any published figure, and nobody asked for one by name.
    """

    metric: str
    k: int | None
    ours: float
    figure: Figure | None
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    elsewhere: bool = False

    @property
    def name(self) -> str:
        return self.metric if self.k is None else f"{self.metric}@{self.k}"

    @property
    def comparable(self) -> bool:
        return self.figure is not None and not self.differences

    @property
    def difference(self) -> float | None:
        """Ours minus the published one, where they are comparable."""
        return self.ours - self.figure.value if self.figure is not None and self.comparable else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found: dict[str, Any] = {"metric": self.metric, "k": self.k, "ours": self.ours, "comparable": self.comparable}
        if self.figure is not None:
            found["published"] = {
                "figure": self.figure.name,
                "value": self.figure.value,
                "printed": self.figure.text,
                "origin": self.figure.origin,
                "source": self.figure.source.title,
                "repository": self.figure.source.repository,
                "protocol": self.figure.protocol.text,
                "note": self.figure.note,
            }
            found["differences"], found["notes"] = list(self.differences), list(self.notes)
            found["difference"] = self.difference
            found["equal_as_printed"] = self.comparable and self.figure.equals(self.ours)
        return found


def compare(evaluation: Evaluation, *, model: str | None = None, accuracy: float | None = None) -> tuple[Row, ...]:
    """MAP at each K, and the accuracy if there is one, beside what was published.

    ``model`` is the zoo's name of the model to compare with. By default it is the one that made the codes; where these
    do not say, it is the one that has a published figure equal to one of ours, if there is any.
    """
    asked = model is not None
    if model is not None:
        zoo.entry(model)
    notes: tuple[str, ...] = ()
    if model is None and (model := recorded_model(evaluation.queries.codes)) is None:
        model = _model_of_equal_figure(evaluation)
        notes = ("the codes do not say which model made them",)
    rows = [_row(evaluation, "MAP", scores.k, scores.map, model, notes) for scores in evaluation.scores]
    if accuracy is not None:
        rows.append(_row(evaluation, "accuracy", None, accuracy, model, notes))
    return tuple(replace(row, elsewhere=not asked and any(_other_data(evaluation, row.metric))) for row in rows)


def _model_of_equal_figure(evaluation: Evaluation) -> str | None:
    for scores in evaluation.scores:
        for figure in figures(metric="MAP", bits=scores.bits, k=scores.k, data=CIFAR10):
            if figure.models and figure.digits >= TELLING and figure.equals(scores.map):
                return figure.models[0]
    return None


def recorded_model(codes: Codes) -> str | None:
    """The name of the model that the codes file records, in the zoo or not."""
    name = codes.provenance.get("model")
    return name if isinstance(name, str) and name else None


def accuracy_of(queries: Side) -> float:
    """The share of the queries whose highest class score, in the features of their codes file, is their label."""
    scores, labels = queries.codes.features, queries.labels
    if scores is None or labels.ndim != 1:
        raise RetrievalError(f"{queries.file}: accuracy wants class scores as features and one label for each picture")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise RetrievalError(
            f"{queries.file}: has {scores.shape[1]} class scores for labels from {labels.min()} to {labels.max()}; is "
            f"{queries.codes.provenance.get('features')} the blob with the class scores?"
        )
    return float((scores.argmax(axis=1) == labels).mean())


def _row(
    evaluation: Evaluation, metric: str, k: int | None, ours: float, model: str | None, notes: tuple[str, ...]
) -> Row:
    """Our figure beside that of ``model`` which is equal to it, or else the nearest in kind."""
    codes, database = evaluation.queries.codes, "test" if evaluation.database is None else "train"
    found = closest(metric, bits=codes.bits, k=k, model=model, database=database)
    if found is None:
        return Row(metric, k, ours, None)
    figure, differences = found.figure, list(found.differences)
    if model is None:
        differences.append("the codes do not say which model made them (--compare-with NAME does)")
    differences += [*_other_data(evaluation, metric), *_made_otherwise(codes, figure)]
    if metric == "MAP" and (divisor := evaluation.longest.divisor) != "found":
        differences.append(f"published with AP over the right ones among the first K, here over {divisor!r}")
    more = list(notes if model is not None else ())
    equal = [other for other in figures(metric=metric, bits=codes.bits, k=k, data=CIFAR10) if other.equals(ours)]
    if not differences:
        figure = next((other for other in equal if model in other.models and not figure.equals(ours)), figure)
        if metric == "MAP" and not in_papers_order(evaluation):
            more.append("the pictures are not in the order of the papers' lists, so ties are ordered otherwise")
    more += [f"equal to {other.text}, {other.name} {other.note}" for other in equal if not other.models]
    return Row(metric, k, ours, figure, tuple(differences), tuple(more))


def _other_data(evaluation: Evaluation, metric: str) -> Iterator[str]:
    """Whether this is the papers' division of CIFAR-10, as far as counts and labels tell."""
    parts = [(evaluation.queries, QUERIES, "test")]
    if evaluation.database is not None and metric != "accuracy":
        parts.append((evaluation.database, DATABASE, "training"))
    for side, count, name in parts:
        if not _is_even(side.labels, count):
            yield f"CIFAR-10's {count:,} {name} pictures were published, here are {len(side):,} others"


def _is_even(labels: Labels, count: int) -> bool:
    """Ten classes, equally frequent, ``count`` pictures."""
    if labels.ndim != 1 or len(labels) != count:
        return False
    return bool(np.array_equal(np.unique(labels, return_counts=True)[1], np.full(CLASSES, count // CLASSES)))


def _made_otherwise(codes: Codes, figure: Figure) -> Iterator[str]:
    """How the making of the codes, as far as it is recorded, differs from that of the published ones."""
    made = codes.provenance
    form = made.get("pictures_as") or ("papers" if codes.paths and codes.paths[0].endswith((".jpg", ".jpeg")) else None)
    lossless = figure.origin == "measured"
    if form is not None and (form == "lossless") != lossless:
        here, there = "JPEG-coded pictures", "lossless pictures"
        here, there = (here, there) if lossless else (there, here)
        yield f"published for CIFAR-10's {there}, here hashed from {here}"
    if made.get("precision", "float32") != "float32":
        yield f"hashed in {made['precision']}"
    try:
        entry = zoo.entry(str(made.get("model")))
    except ZooError:
        return
    for key, file in (("weights_sha256", entry.weights), ("mean_sha256", entry.mean)):
        if file is not None and file.sha256 and key in made and made[key] != file.sha256:
            yield f"hashed with another file than {file.name}"
    if "preprocessing" in made and made["preprocessing"] != preprocess.Spec.from_dict(entry.preprocessing).to_dict():
        yield "hashed with other preprocessing than the model's own"


def order_of(labels: Labels) -> str:
    """SHA-256 of a sequence of labels, whatever they are called: each as the number of labels seen before it."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return hashlib.sha256(np.argsort(np.argsort(first))[inverse].astype(np.uint8).tobytes()).hexdigest()


def in_papers_order(evaluation: Evaluation) -> bool:
    """Whether the labels stand in the order of the papers' lists, in which their figures rank equal distances."""
    sides: list[Side | None] = [evaluation.queries, evaluation.database]
    orders = tuple(order_of(side.labels) for side in sides if side is not None and side.labels.ndim == 1)
    return orders == PAPERS_ORDER


def drawable_curves(evaluation: Evaluation) -> tuple[Curve, ...]:
    """The published precision curves that may stand in one figure with ours: same data, bits and database."""
    if evaluation.database is None or any(_other_data(evaluation, "MAP")):
        return ()
    return tuple(curve for curve in curves() if curve.bits == evaluation.queries.codes.bits)
