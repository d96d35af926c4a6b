"""The tracker's contract as pure records and rules, shared by the client and the embedded tracker."""
