"""From a path, bytes, an array or a PIL image to features; features on disk."""
