"""The command line: it parses options, calls the other packages and renders what they answer."""
