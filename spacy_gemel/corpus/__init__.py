"""Documents with images: the training reader, and converters from files to DocBin."""
