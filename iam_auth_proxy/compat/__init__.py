"""The seed packages' own names and signatures, thin over the rest: for moving over line by line."""
