"""The command line: reads flags, calls one task, prints what it returns. It knows no tensors and no model library."""
