"""The tutorial, as tests: one concept each, public names only. Read from the top."""
