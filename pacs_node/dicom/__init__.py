"""The DICOM network. The only place that imports pynetdicom."""
