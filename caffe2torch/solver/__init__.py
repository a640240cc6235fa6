"""Training with Caffe's solvers: settings, learning rates, updates, snapshots and the loop."""
