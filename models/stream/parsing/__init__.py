"""The parsing of text records, columns and cells."""
