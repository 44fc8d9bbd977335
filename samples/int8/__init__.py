"""The INT8 sample: a model in float, pruned, quantised, and both, each measured."""
