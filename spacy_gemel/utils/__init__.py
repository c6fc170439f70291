"""Files, caches, messages: what every room may use."""
