"""Whole detectors in small: the shapes of blobs that depend on values, and the heads of SSD and Faster R-CNN."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffe2torch import load
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.prototxt import read_net

SSD = """
input: "data" input_shape { dim: 1 dim: 3 dim: 32 dim: 32 }
layer { name: "pool" type: "Pooling" bottom: "data" top: "map" pooling_param { pool: AVE kernel_size: 8 stride: 8 } }
layer {
  name: "norm" type: "Normalize" bottom: "map" top: "norm"
  norm_param { across_spatial: false channel_shared: false scale_filler { type: "constant" value: 20 } }
}
layer { name: "loc" type: "Convolution" bottom: "norm" top: "loc" convolution_param { num_output: 12 kernel_size: 1 } }
layer { name: "conf" type: "Convolution" bottom: "norm" top: "conf" convolution_param { num_output: 9 kernel_size: 1 } }
layer { name: "p1" type: "Permute" bottom: "loc" top: "p1" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "p2" type: "Permute" bottom: "conf" top: "p2" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "f1" type: "Flatten" bottom: "p1" top: "f1" }
layer { name: "f2" type: "Flatten" bottom: "p2" top: "f2" }
layer {
  name: "prior" type: "PriorBox" bottom: "map" bottom: "data" top: "prior"
  prior_box_param { min_size: 8 aspect_ratio: 2 flip: true clip: false variance: [0.1, 0.1, 0.2, 0.2] offset: 0.5 }
}
layer { name: "rows" type: "Reshape" bottom: "f2" top: "rows" reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "soft" type: "Softmax" bottom: "rows" top: "soft" softmax_param { axis: 2 } }
layer { name: "f3" type: "Flatten" bottom: "soft" top: "f3" }
layer {
  name: "found" type: "DetectionOutput" bottom: "f1" bottom: "f3" bottom: "prior" top: "found"
  detection_output_param {
    num_classes: 3 share_location: true background_label_id: 0 code_type: CENTER_SIZE
    nms_param { nms_threshold: 0.45 top_k: 100 } keep_top_k: 10 confidence_threshold: 0.01
  }
}
"""

TRAINED = (
    """
layer {
  name: "data" type: "AnnotatedData" top: "data" top: "label" include { phase: TRAIN }
  transform_param {
    mirror: true mean_value: [104, 117, 123] emit_constraint { emit_type: CENTER }
    resize_param { prob: 1 resize_mode: WARP height: 32 width: 32 interp_mode: [LINEAR, AREA] }
  }
  data_param { source: "gone/train_lmdb" batch_size: 4 backend: LMDB }
  annotated_data_param { batch_sampler { max_sample: 1 max_trials: 1 } anno_type: BBOX label_map_file: "gone" }
}
layer {
  name: "data" type: "AnnotatedData" top: "data" top: "label" include { phase: TEST }
  transform_param { mean_value: [104, 117, 123] resize_param { height: 32 width: 32 } }
  data_param { source: "gone/test_lmdb" batch_size: 2 backend: LMDB }
  annotated_data_param { anno_type: BBOX }
}
"""
    + SSD.partition("\n")[2].partition("\n")[2].replace('top: "found"', 'top: "found" include { phase: TEST }')
    + """
layer {
  name: "loss" type: "MultiBoxLoss" bottom: "f1" bottom: "f2" bottom: "prior" bottom: "label" top: "loss"
  include { phase: TRAIN } propagate_down: [true, true, false, false] loss_param { normalization: VALID }
  multibox_loss_param {
    loc_loss_type: SMOOTH_L1 conf_loss_type: SOFTMAX loc_weight: 1 num_classes: 3 share_location: true
    match_type: PER_PREDICTION overlap_threshold: 0.5 use_prior_for_matching: true background_label_id: 0
    use_difficult_gt: true neg_pos_ratio: 3 neg_overlap: 0.5 code_type: CENTER_SIZE mining_type: MAX_NEGATIVE
  }
}
layer {
  name: "eval" type: "DetectionEvaluate" bottom: "found" bottom: "label" top: "eval" include { phase: TEST }
  detection_evaluate_param {
    num_classes: 3 background_label_id: 0 overlap_threshold: 0.5 evaluate_difficult_gt: false
    name_size_file: "NAMES"
  }
}
"""
)
"""SSD as its authors train and test it: the data layer, the loss, and the evaluation after DetectionOutput."""

FASTER_RCNN = """
layer {
  name: "data" type: "Input" top: "map" top: "scores" top: "moves" top: "im_info"
  input_param {
    shape { dim: 1 dim: 4 dim: 6 dim: 7 } shape { dim: 1 dim: 18 dim: 6 dim: 7 }
    shape { dim: 1 dim: 36 dim: 6 dim: 7 } shape { dim: 1 dim: 3 }
  }
}
layer {
  name: "proposal" type: "Python" bottom: "scores" bottom: "moves" bottom: "im_info" top: "rois"
  python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" }
}
layer {
  name: "pool" type: "ROIPooling" bottom: "map" bottom: "rois" top: "pool"
  roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.0625 }
}
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 3 } }
"""


@pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="OpenCV 5 has no Caffe importer")
def test_an_ssd_head_finds_what_opencv_finds(tmp_path: Path) -> None:
    text, weights = tmp_path / "ssd.prototxt", tmp_path / "ssd.caffemodel"
    text.write_text(SSD, "utf-8")
    random = np.random.RandomState(0)
    shapes = {"norm": [(3,)], "loc": [(12, 3, 1, 1), (12,)], "conf": [(9, 3, 1, 1), (9,)]}
    blobs = {name: [random.randn(*shape).astype(np.float32) for shape in own] for name, own in shapes.items()}
    write_caffemodel(weights, read_net(text), blobs)
    image = random.rand(1, 3, 32, 32).astype(np.float32)
    net, oracle = load(text, weights), cv2.dnn.readNetFromCaffe(str(text), str(weights))
    oracle.setInput(image)
    with torch.no_grad():
        found = net(torch.from_numpy(image))["found"].numpy()
    expected = oracle.forward()
    assert found.shape == expected.shape == (1, 1, 10, 7)
    assert net.blob_shapes["found"] == found.shape
    by_score = found[0, 0][np.argsort(-found[0, 0, :, 2], kind="stable")]
    np.testing.assert_allclose(by_score, expected[0, 0], atol=1e-4)


OBJECTS = [[0, 1, 0, 0.1, 0.1, 0.4, 0.35, 0], [0, 2, 0, 0.5, 0.6, 0.8, 0.8, 0], [1, 1, 0, 0.2, 0.5, 0.5, 0.7, 1]]


def test_an_ssd_learns_the_boxes_it_is_shown(tmp_path: Path) -> None:
    text = tmp_path / "ssd.prototxt"
    text.write_text(TRAINED, "utf-8")
    torch.manual_seed(0)
    net = load(text, phase="train")
    assert net.input_shapes == {"data": (4, 3, 32, 32), "label": (1, 1, 1, 8)}
    data, label = torch.rand(4, 3, 32, 32), torch.tensor(OBJECTS).reshape(1, 1, 3, 8)
    losses = []
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        loss = net({"data": data, "label": label})["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_an_ssd_is_evaluated(tmp_path: Path) -> None:
    text, sizes = tmp_path / "ssd.prototxt", tmp_path / "sizes.txt"
    sizes.write_text("first 375 500\nsecond 333 500\n", "utf-8")
    text.write_text(TRAINED.replace("NAMES", str(sizes)), "utf-8")
    net = load(text, phase="test")
    assert net.input_shapes == {"data": (2, 3, 32, 32), "label": (1, 1, 1, 8)}
    assert net.blob_shapes["eval"] == (1, 1, 2 + net.blob_shapes["found"][2], 5)
    with torch.no_grad():
        tops = net.select("found", "eval")(
            {"data": torch.rand(2, 3, 32, 32), "label": torch.tensor(OBJECTS).reshape(1, 1, 3, 8)}
        )
    assert tops["eval"].shape == (1, 1, 2 + tops["found"].shape[2], 5)
    assert tops["eval"][0, 0, :2].tolist() == [[-1, 1, 1, -1, -1], [-1, 2, 1, -1, -1]]  # the difficult one apart


def test_layers_take_as_many_proposals_as_there_are(tmp_path: Path) -> None:
    text = tmp_path / "rcnn.prototxt"
    text.write_text(FASTER_RCNN, "utf-8")
    net = load(text, allow_missing=True)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "map": torch.randn(1, 4, 6, 7, generator=generator),
        "scores": torch.rand(1, 18, 6, 7, generator=generator),
        "moves": torch.randn(1, 36, 6, 7, generator=generator) * 0.2,
        "im_info": torch.tensor([[96.0, 112.0, 1.0]]),
    }
    tops = net.select("rois", "fc")(inputs)
    assert 1 < len(tops["rois"]) < 300
    assert tops["fc"].shape == (len(tops["rois"]), 3)
    assert net.blob_shapes["fc"] == (300, 3)
