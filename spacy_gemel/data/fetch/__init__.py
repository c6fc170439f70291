"""Images by URL into a folder: the only room that uses the network, and only when asked."""
