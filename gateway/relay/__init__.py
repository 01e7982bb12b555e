"""The way of one call: open, stream, settle once; and the pure logic of the bytes that pass."""
