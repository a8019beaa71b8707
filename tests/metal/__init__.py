"""The kernels of metal/: right, reading every weight once, and few launches."""
