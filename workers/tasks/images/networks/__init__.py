"""The networks, one file for each family. `factory(activation, shape, classes, **options)` makes one; the table of
their names is in `workers.tasks.images.models`.

`activation` is an `Activations`, which makes a new activation for each site. `shape` is the shape of one image,
`(channels, height, width)`. A network maps `(n, *shape)` to `(n, classes)`. Its options are the keyword-only arguments;
their annotations define the accepted values (options.py).
"""
