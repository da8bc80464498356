"""The settings of a search: the experiment file, presets and flags become one checked `Config`."""
