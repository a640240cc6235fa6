"""Measuring codes against published results: figures of the papers, reports, precision curves."""
