"""Image classifiers: data sets, networks, recipes and the training loop."""
