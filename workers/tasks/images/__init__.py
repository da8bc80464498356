"""The image task: data sets, networks, recipes and the training loop of image classifiers."""
