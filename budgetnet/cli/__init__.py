"""The command line: reads arguments, calls the library, prints. Imports heavy packages only inside the verbs."""
