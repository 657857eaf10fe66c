"""The files of the field: one short module a kind of content, every layout in which it is passed around."""
