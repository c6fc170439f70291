"""Images by URL into a folder: the only part that uses the network, and only when asked."""
