"""An ECG in any form to twelve lead images, or a refusal with a reason."""
