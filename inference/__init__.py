"""Radiograph and lead images to mean pulmonary artery pressure: network, model packages and phantoms."""
