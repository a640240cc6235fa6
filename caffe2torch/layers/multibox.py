"""MultiBoxLoss: what SSD is trained with, the losses of the offsets and of the scores of its prior boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from caffe2torch.errors import LayerError
from caffe2torch.layers.detection import check_boxes, decode, encode
from caffe2torch.layers.gradient import with_gradient_of
from caffe2torch.layers.ground_truth import (
    MATCHED,
    UNMATCHED,
    Matching,
    Truth,
    check_rows,
    match,
    of_matched,
    truth,
)
from caffe2torch.layers.loss import FLT_MIN, NormalizedLoss, SigmoidCrossEntropyLoss, SoftmaxWithLoss
from caffe2torch.layers.mining import Mining, mine
from caffe2torch.layers.registry import Message, Shape, enum_name, register


@dataclass(frozen=True)
class Coding:
    """How offsets tell boxes, and which of them a loss is of."""

    code: str = "CORNER"
    variance_in_target: bool = False
    inside: bool = False
    """No loss of a corner of the matched box that lies outside the picture."""


@register("MultiBoxLoss")
class MultiBoxLoss(NormalizedLoss):
    """(loc_weight x loss of the offsets + loss of the scores) / matches, of the boxes matched and of those mined.

    Bottoms: offsets (N, boxes x 4 [x classes]), scores (N, boxes x classes), prior boxes (1, 2, boxes x 4) and the
    ground truth (1, 1, G, 8): rows of item, label, instance, xmin, ymin, xmax, ymax, difficult (item -1: no box).

    The prior boxes, or the predicted ones, are matched with the ground truth: the best pairs one to one, then
    (PER_PREDICTION) each other box with what it overlaps most, if by ``overlap_threshold`` or more. Offsets of matched
    boxes have a SMOOTH_L1 or L2 (d^2 / 2) loss. Scores have a SOFTMAX or LOGISTIC (sigmoid, all classes) loss against
    the label of the match or ``background_label_id``. ``mining_type`` NONE: of all boxes; MAX_NEGATIVE: of the
    matched and, from largest loss on, ``neg_pos_ratio`` times as many that overlap nothing by ``neg_overlap`` or more;
    HARD_EXAMPLE: of the ``sample_size`` of largest loss, matched or not. Mining skips images without ground truth.

    ``loss_param``'s normalization is VALID (the matches) unless given; FULL divides by N x boxes; at least by 1.
    ``propagate_down: false`` leaves that bottom's loss out of the top. As in SSD, boxes are compared in float32; with
    ``encode_variance_in_target`` the gradient leaves out the division by the variance; LOGISTIC targets are
    ``background_label_id`` but for the ones, and without mining there are ones for matched boxes alone, those of image
    i at value (box x classes + label + i x boxes) of the batch. Of equal losses the first box is mined; SSD sorts them
    in any order.

    Not captured by torch.export because the boxes matched and mined depend on the values.
    """

    bottoms = (4, 4)
    no_gradient = (2, 3)
    default_normalization = "VALID"

    def __init__(
        self,
        classes: int,
        *,
        matching: Matching | None = None,
        mining: Mining | None = None,
        coding: Coding | None = None,
        normalization: str | None = None,
        background: int = 0,
        share_location: bool = True,
        by_prior: bool = True,
        difficult: bool = True,
        agnostic: bool = False,
        smooth: bool = True,
        logistic: bool = False,
        weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """``mining`` None: no mining. ``weights``: of the loss of the offsets, and of that of the scores."""
        super().__init__(normalization)
        self.classes, self.background, self.agnostic = classes, background, agnostic
        self.matching, self.mining, self.coding = matching or Matching(), mining, coding or Coding()
        self.share_location, self.by_prior, self.difficult = share_location, by_prior, difficult
        self.smooth, self.logistic, self.weights = smooth, logistic, weights
        self.scores_loss = SigmoidCrossEntropyLoss("NONE") if logistic else SoftmaxWithLoss("NONE")

    @classmethod
    def from_caffe(cls, layer: Message, bottom_shapes: Sequence[Shape]) -> MultiBoxLoss:
        p = layer.multibox_loss_param
        _check(p, list(layer.propagate_down))
        check_boxes(bottom_shapes, p.num_classes, 1 if p.share_location else p.num_classes)
        check_rows(bottom_shapes[3], 8, "the fourth bottom")
        propagated = list(layer.propagate_down) or [True, True]
        nms = p.nms_param
        mining = Mining(
            enum_name(p, "mining_type") == "HARD_EXAMPLE",
            p.neg_pos_ratio,
            p.neg_overlap,
            p.sample_size,
            # An absent top_k is 0 here, unlike in DetectionOutput: nothing is mined.
            (nms.nms_threshold, nms.top_k) if p.HasField("nms_param") and nms.nms_threshold > 0 else None,
            p.use_prior_for_nms,
        )
        return cls(
            p.num_classes,
            matching=Matching(
                enum_name(p, "match_type") == "PER_PREDICTION", p.overlap_threshold, p.ignore_cross_boundary_bbox
            ),
            mining=None if enum_name(p, "mining_type") == "NONE" else mining,
            coding=Coding(enum_name(p, "code_type"), p.encode_variance_in_target, p.bp_inside),
            normalization=cls.read(layer)[0],
            background=p.background_label_id,
            share_location=p.share_location,
            by_prior=p.use_prior_for_matching,
            difficult=p.use_difficult_gt,
            agnostic=p.map_object_to_agnostic,
            smooth=enum_name(p, "loc_loss_type") == "SMOOTH_L1",
            logistic=enum_name(p, "conf_loss_type") == "LOGISTIC",
            weights=(p.loc_weight * propagated[0], float(propagated[1])),
        )

    def top_shapes(self, bottom_shapes: Sequence[Shape]) -> list[Shape]:
        return [()]

    def forward(self, locations: Tensor, scores: Tensor, priors: Tensor, labels: Tensor) -> Tensor:
        images = len(locations)
        prior, variance = priors.detach()[0].float().reshape(2, -1, 4)
        true = truth(labels.detach(), images, background=self.background, difficult=self.difficult)
        offsets = locations.reshape(images, len(prior), -1, 4)
        rows = scores.reshape(images, len(prior), self.classes)
        boxes = self._boxes(offsets, prior, variance, by_prior=self.by_prior)
        matched, overlaps = self._matches(boxes, true)
        labels = self._labels(matched, true)

        kept = matched >= MATCHED
        image, column, box = kept.nonzero().unbind(1)
        wanted = true.boxes[image, matched[kept]]
        matching = boxes.expand(images, matched.shape[1], -1, -1)[kept]
        found, target = self._moves(offsets[image, box, column], wanted, prior[box], variance[box], matching)
        distances = F.smooth_l1_loss(found, target, reduction="none") if self.smooth else (found - target).square() / 2
        chosen = None
        if self.mining is not None:
            losses = self._losses(rows.detach(), labels[:, 0])
            if self.mining.hard:
                losses[image, box] += distances.detach().sum(1).float()
            boxes = self._boxes(offsets, prior, variance, by_prior=self.mining.by_prior)[:, 0]
            mined = mine(self.mining, losses, matched[:, 0], overlaps, true.present.any(1), boxes)
            if self.mining.hard:
                kept = kept & mined.unsqueeze(1)
                distances = distances[mined[image, box]]
            chosen = kept[:, 0] | (mined & (matched[:, 0] == UNMATCHED))
        loss = self.weights[0] * distances.sum() + self.weights[1] * self._of_scores(rows, labels, kept, chosen)
        return loss / self.divisor(kept, images * len(prior), images)

    def _boxes(self, offsets: Tensor, prior: Tensor, variance: Tensor, *, by_prior: bool) -> Tensor:
        """The boxes that are compared, (images or 1, classes or 1, boxes, 4): the prior or the predicted ones."""
        if by_prior:
            return prior[None, None]
        coding = self.coding
        if coding.code != "CORNER" and bool((prior[:, 2:] <= prior[:, :2]).any()):
            raise LayerError("a prior box has no area: expected xmax above xmin and ymax above ymin")
        moves = offsets.detach().float().transpose(1, 2)
        return decode(moves, prior, variance, coding.code, variance_in_target=coding.variance_in_target)

    def _matches(self, boxes: Tensor, true: Truth) -> tuple[Tensor, Tensor]:
        """The ground truth of each box (images, 1 or classes, boxes), and largest overlaps, which mining reads."""
        if self.share_location or self.by_prior:
            index, overlaps = match(boxes[:, 0], true, self.matching)
            if self.share_location:
                return index.unsqueeze(1), overlaps
            column = torch.arange(self.classes, device=boxes.device)[:, None]
            labels = of_matched(true.labels, index, -1).unsqueeze(1)
            return torch.where(labels == column, index.unsqueeze(1), UNMATCHED), overlaps
        found = [
            match(own, Truth(true.boxes, true.labels, true.present & (true.labels == label)), self.matching)
            for label, own in enumerate(boxes.unbind(1))
        ]
        return torch.stack([index for index, _ in found], 1), found[0][1]

    def _labels(self, matched: Tensor, true: Truth) -> Tensor:
        """The label of each box's match, the background's where there is none; of the shape of ``matched``."""
        labels = of_matched(true.labels, matched, self.background)
        wrong = (matched >= MATCHED) & ((labels < 0) | (labels >= self.classes))
        if bool(wrong.any()) and not (self.agnostic and self.mining is None):  # SSD's mining reads the labels
            raise LayerError(
                f"the ground truth has label {int(labels[wrong][0])}: expected 0 to {self.classes - 1}, for "
                f"num_classes is {self.classes}"
            )
        return torch.where(matched >= MATCHED, self.background + 1, labels) if self.agnostic else labels

    def _moves(
        self, offsets: Tensor, wanted: Tensor, prior: Tensor, variance: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Offsets predicted and wanted (matches, 4), of the ``boxes`` matched and their ``wanted`` ground truth."""
        if bool((variance <= 0).any()):
            raise LayerError("a prior box has a variance that is not positive: the second row of the third bottom")
        found = offsets.detach().float().to(offsets.dtype)
        target = encode(
            wanted, prior, variance, self.coding.code, variance_in_target=self.coding.variance_in_target
        ).to(offsets.dtype)
        if self.coding.inside:
            found = torch.where((boxes < 0) | (boxes > 1), target, found)
        if self.coding.variance_in_target:
            found, target = found / variance, target / variance
        return with_gradient_of(found, offsets), target

    def _losses(self, rows: Tensor, labels: Tensor) -> Tensor:
        """The loss of each box's scores, (images, boxes) in float32, by which boxes are mined."""
        if self.logistic:
            ones = F.one_hot(labels, self.classes).to(rows.dtype)
            return F.binary_cross_entropy_with_logits(rows, ones, reduction="none").sum(2).float()
        likely = rows.softmax(2).gather(2, labels.unsqueeze(2)).squeeze(2)
        return -likely.clamp(min=FLT_MIN).log().float()

    def _of_scores(self, rows: Tensor, labels: Tensor, kept: Tensor, chosen: Tensor | None) -> Tensor:
        """The summed loss of the scores of the boxes ``chosen`` (None: of all)."""
        count, classes = rows.shape[1:]
        own = torch.where(kept, labels, -1).amax(1)
        own = torch.where(own < 0, self.background, own)
        if chosen is not None:
            rows, own = rows[chosen], own[chosen]
        else:
            rows, own = rows.flatten(0, 1), own.flatten()
        target = own
        if self.logistic:
            target = torch.full_like(rows, self.background).detach()
            if chosen is not None:
                target.scatter_(1, own[:, None], 1.0)
            else:
                image, column, box = kept.nonzero().unbind(1)
                # SSD goes on by a value for each box, not for each box and class, from one image to the next.
                target.view(-1)[image * count + box * classes + labels[image, column, box]] = 1.0
        loss: Tensor = self.scores_loss(rows, target)
        return loss

    def extra_repr(self) -> str:
        return f"{self.classes} classes, {super().extra_repr()}, {self.matching}, {self.mining}, {self.coding}"


def _check(p: Message, propagated: Sequence[bool]) -> None:
    if p.num_classes < 1:
        raise LayerError(f"multibox_loss_param.num_classes is {p.num_classes}: expected at least 1")
    if p.HasField("normalize"):
        raise LayerError(
            "multibox_loss_param has normalize, of the first SSD alone: remove it and give loss_param { normalization }"
        )
    mines = enum_name(p, "mining_type") != "NONE"
    if p.HasField("do_neg_mining") and p.do_neg_mining != mines:
        raise LayerError(
            f"multibox_loss_param has do_neg_mining: {str(p.do_neg_mining).lower()}, but mining_type is "
            f"{enum_name(p, 'mining_type')}: remove do_neg_mining and give the mining_type that is meant"
        )
    if mines and not p.share_location:
        raise LayerError("multibox_loss_param: only mining_type NONE goes with share_location: false")
    if enum_name(p, "mining_type") == "HARD_EXAMPLE" and p.sample_size < 1:
        raise LayerError(f"multibox_loss_param.sample_size is {p.sample_size}: expected at least 1")
    if p.background_label_id >= p.num_classes and (mines or enum_name(p, "conf_loss_type") == "SOFTMAX"):
        raise LayerError(
            f"multibox_loss_param.background_label_id is {p.background_label_id}: expected 0 to {p.num_classes - 1}, "
            f"for num_classes is {p.num_classes}"
        )
    if p.map_object_to_agnostic and (p.num_classes, p.background_label_id) != (2, 0):
        raise LayerError(
            "multibox_loss_param has map_object_to_agnostic: expected num_classes 2 and background_label_id 0, found "
            f"{p.num_classes} and {p.background_label_id}"
        )
    if any(propagated[2:]):
        raise LayerError("the layer has propagate_down: true for its prior boxes or its labels: expected false")
