"""Constrained decoding over one shared prefix; knows no images and no entity ids."""
