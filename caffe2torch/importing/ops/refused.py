"""Why some functions have no counterpart, where that is not plain."""

from __future__ import annotations

from caffe2torch.importing.registry import refuses

refuses(
    "Caffe has no logarithm of softmax that is exact for small probabilities; end with softmax or the scores",
    "log_softmax",
)
refuses("Caffe's MVN adds eps outside the root, torch inside", "instance_norm", "group_norm", "layer_norm", "rms_norm")
refuses(
    "no layer of Caffe computes it; retrain with relu, silu or sigmoid", "gelu", "mish", "celu", "glu", "logsigmoid"
)
refuses("no layer of Caffe moves values between channels and places so", "pixel_shuffle", "pixel_unshuffle", "fold")
refuses(
    "it gives the indices of the maxima; use the values only",
    *(f"{prefix}max_pool{axes}d_with_indices" for prefix in ("", "adaptive_") for axes in (1, 2)),
)
refuses("Caffe's Pooling takes planes, (N, C, H, W)", "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d")
refuses("Caffe has no attention", "scaled_dot_product_attention", "multi_head_attention_forward")
refuses("the gates' order and the state differ from Caffe's LSTM and RNN layers", "lstm", "gru", "rnn_tanh", "rnn_relu")
refuses("a loss belongs to training, not to the net that is converted", "cross_entropy", "mse_loss", "nll_loss")
refuses("it writes into a part of a tensor; Caffe's layers make whole blobs (use cat)", "__setitem__", "copy_")
