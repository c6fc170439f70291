"""Files, caches, messages: what every part may use."""
