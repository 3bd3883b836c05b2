"""Who acts: keys and names of organisations, persons, agents and witnesses, in files or tokens."""
