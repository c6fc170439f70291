"""Files in, linked files out; folders of images to features."""
