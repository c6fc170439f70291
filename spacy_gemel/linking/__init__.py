"""The method: mentions in, candidates out; knows no Docs."""
