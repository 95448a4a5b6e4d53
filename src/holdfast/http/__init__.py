"""HTTP/1.1 server and client as callback-style protocols on httptools (llhttp)."""
