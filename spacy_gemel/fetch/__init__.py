"""Downloading images by URL into a folder: the only room that goes to the network by itself, and only when asked."""
