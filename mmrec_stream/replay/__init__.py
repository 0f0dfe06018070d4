"""Event files of any origin into the topics: readers are pure, publishing is one thin shell."""
