"""Videos of photographs that were cut out, moving over backgrounds: real pictures, known times."""
