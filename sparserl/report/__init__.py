"""What finished runs say: groups of seeds, their numbers with intervals, and a document of them to render."""
