"""Which photos and masks lie in a folder: a finder for each layout, and what the files beside them say."""
