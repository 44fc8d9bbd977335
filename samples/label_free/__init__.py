"""The label-free sample: an embedding of pictures, trained, pruned and judged without a label."""
