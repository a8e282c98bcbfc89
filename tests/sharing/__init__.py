"""Re-export of a mount over NFS and SMB: real servers, real clients, a network of their own."""
