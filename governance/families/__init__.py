"""Event families: each module has the schemas, the rules and the slice of the state of one family."""
