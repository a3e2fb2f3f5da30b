"""What stands in names of functions, for those who write them and those who call them."""

from __future__ import annotations

#: what is added to the name of the function that several threads call together
SHARE = "_share"
