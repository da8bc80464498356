"""Tasks train and judge candidates: image classifiers, or a user's own training functions."""
