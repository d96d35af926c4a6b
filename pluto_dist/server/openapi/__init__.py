"""The OpenAPI document of the embedded tracker."""
