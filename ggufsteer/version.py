"""The version, in one place: the build reads it from here, and so does whatever writes it into a file."""

VERSION = "0.1.0"
