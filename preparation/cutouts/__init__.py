"""Videos of photographs that were cut out, moving over backgrounds: real pictures whose times are known to the frame."""
