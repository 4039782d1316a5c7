"""What tests of methods, plugins and weights need, usable in the tests of third parties too."""
