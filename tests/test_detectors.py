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
