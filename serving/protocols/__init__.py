"""Front doors: what goes over the wire. One core answers; a protocol only reads and writes."""
