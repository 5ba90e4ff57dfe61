"""How good samples are: the measures, the classifier that looks at them, and all figures at once."""
