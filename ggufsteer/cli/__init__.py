"""The command line: reads the flags, calls one task, prints what it returns. It knows no tensors and no model library."""
