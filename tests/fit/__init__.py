"""`fit`: variants, machines, the golden tables, and that what does not fit is refused."""
