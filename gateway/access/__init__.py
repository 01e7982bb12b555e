"""Who may: the format of keys, and the directory that turns a bearer token into a principal."""
