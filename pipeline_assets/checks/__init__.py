"""Asset checks only: what must be true of a materialised partition. Schema checks and the gate block, distributions warn."""
