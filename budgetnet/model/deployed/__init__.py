"""Networks as a runtime executes them: its operations, the memory they need, and the bytes of the weights."""
