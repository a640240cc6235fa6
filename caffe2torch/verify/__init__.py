"""Proof by comparison: golden cases of real Caffe, a user's own dump of a Caffe net, or OpenCV's Caffe importer."""
