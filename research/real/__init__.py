"""Evidence on real pretrained models and real data: cells, each measured once."""
