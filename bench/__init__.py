"""What a call through the gateway costs, beside nginx on the same machine in the same minutes.

Knows the gateway only as a command that starts it and a port that answers.
"""
