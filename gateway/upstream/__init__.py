"""Where calls go: the interface of a transport and its two implementations."""
