"""A grid of settings, each trained and measured once, and the tables they fill."""
