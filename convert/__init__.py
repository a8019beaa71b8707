"""From a gpt-oss checkpoint as published to one that MLX reads without further work.

    names.py     which tensors each layout holds, and what becomes of each: a table
    mxfp4.py     the MXFP4 format in pure functions
    reader.py    source files -> checked headers, then chunks of rows in file order
    writer.py    a directory that appears whole or not at all
    conversion.py  convert() and verify(), which put these together

The experts' MXFP4 bytes are carried over bit for bit. The package does not know how a model is run.
"""

from gptoss_mlx.convert.conversion import ConversionReport, Dense, convert, verify

__all__ = ["ConversionReport", "Dense", "convert", "verify"]
