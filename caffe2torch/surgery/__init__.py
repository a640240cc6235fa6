"""Surgery on nets: operations that make a new net and its weights out of old ones."""
