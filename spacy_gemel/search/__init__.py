"""Search among names: a language model and a set of allowed names in, scored names out."""
