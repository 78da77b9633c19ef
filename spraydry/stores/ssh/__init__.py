"""SSH connections, and SFTP over them."""
