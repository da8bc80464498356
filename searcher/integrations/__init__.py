"""Other programs of the field: searches as jobs of a Ray cluster."""
