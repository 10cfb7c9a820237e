"""Radiograph and lead images to mean pulmonary artery pressure: the network, its packages and its phantoms."""
