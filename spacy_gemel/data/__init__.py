"""Other people's data: readers of data sets, importers of knowledge bases, images by URL."""
