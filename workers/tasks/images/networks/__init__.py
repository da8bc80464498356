"""The child networks, one file a family. Each is `factory(activation, shape, classes, **options)`; the table of their
names is in `workers.tasks.images.models`.

`activation` is an `Activations`: what makes a fresh activation for each site. `shape` is that of one image,
`(channels, height, width)`. A network maps `(n, *shape)` to `(n, classes)`. Its options are the keyword-only arguments,
whose annotations say which values they take (options.py).
"""
