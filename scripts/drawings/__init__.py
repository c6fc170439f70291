"""Drawings of ambiguous names, made from the tables in assets/drawings and from npm packages of emoji."""
