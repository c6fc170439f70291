"""Other people's data: data sets, knowledge bases and images, read into the project's own forms."""
