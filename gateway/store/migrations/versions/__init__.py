"""One step of the schema a file. Its name starts with `v` and the number of its revision."""
