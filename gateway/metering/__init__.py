"""What a call was: the tokens that upstream reports, read without touching a byte."""
