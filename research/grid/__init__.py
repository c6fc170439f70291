"""The paper's tables as a grid of settings: read, planned, run and filled."""
