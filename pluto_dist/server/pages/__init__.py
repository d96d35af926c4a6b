"""The HTML pages of the embedded tracker."""
