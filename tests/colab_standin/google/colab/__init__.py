"""A stand-in for the package that Colab's kernels have imported before a notebook's first cell runs."""
