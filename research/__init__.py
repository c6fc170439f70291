"""What needs a clone: the paper's tables as a grid, baselines that are trained, evidence, sizes."""
