"""Ways to an app: ``vias`` are upstream proxies, ``bastion`` keeps tunnels by ``ssh``."""
