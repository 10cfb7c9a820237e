"""Write a package's MODEL_CARD.md from its manifest: every figure in it stands in the manifest too."""

from __future__ import annotations

from collections.abc import Mapping

from inference.manifest import Manifest, PackageKind

MOST_VALUES = 5
"""Of one tag; the manifest holds all."""
_FIGURES = (
    ("mean_absolute_error", "Mean absolute error, mmHg"),
    ("bias", "Bias (estimated minus measured), mmHg"),
    ("error_sd", "SD of the error, mmHg"),
    ("correlation", "Pearson's r"),
    ("slope", "Slope, estimated on measured"),
    ("explained", "1 - SSE/SST"),
)


def model_card(manifest: Manifest) -> str:
    """The card as Markdown."""
    data = sorted(manifest.data.items())
    lines = [f"# {manifest.name} {manifest.version}", "", "**Research use only.** Not a medical device.", ""]
    if manifest.kind is PackageKind.SYNTHETIC_DEMO:
        lines += [
            "This model was trained on drawings. **It knows nothing of real patients**, and a number that it gives for",
            "a real radiograph and ECG means nothing. It exists so that the whole way can be tried and tested.",
            "",
        ]
    lines += [
        f"- Network: {manifest.architecture.name}",
        f"- Weights: {manifest.weights_dtype} as stored, computed in float32",
        f"- Intended use: {manifest.intended_use}",
        *(f"- Not for: {item}" for item in manifest.exclusions),
        "",
        "## Data",
        "",
        *(f"- {name.replace('_', ' ')}: {_plain(value)}" for name, value in data if name != "tags"),
        *_tags(manifest.data.get("tags")),
        "",
        f"## On {manifest.metrics['patients']} held-out patients",
        "",
        "| figure | value | 95% interval (bootstrap by patient) |",
        "|---|---|---|",
    ]
    for key, label in _FIGURES:
        entry = _object(manifest.metrics[key])
        lines.append(f"| {label} | {entry['value']} | {entry['low']} to {entry['high']} |")
    interval = _object(manifest.metrics["interval"])
    coverage = _object(interval["coverage"])
    metrics, calibrated_on = manifest.metrics, manifest.data.get("calibrated_on", "calibration patients")
    lines += [
        "",
        f"- Predicting the mean for everybody: mean absolute error "
        f"{metrics['mean_absolute_error_of_predicting_the_mean']} mmHg.",
        f"- Interval of {interval['level']:.0%}: the estimate ± {interval['half_width_mmhg']} mmHg, split-conformal "
        f"on the {calibrated_on}; it covered {coverage['value']} of the held-out patients "
        f"(95% Wilson interval {coverage['low']} to {coverage['high']}).",
        f"- Given another patient's ECG, r falls to {metrics['correlation_with_ecg_of_another_patient']}; given "
        f"another patient's radiograph, to {metrics['correlation_with_radiograph_of_another_patient']}.",
        f"- Of {metrics['examinations']} held-out examinations called out of distribution: "
        f"{_plain(metrics['out_of_distribution_flags'])}; "
        f"films called another view or inverted: {metrics['films_called_another_view']}.",
        *_privacy(manifest),
        "",
        "## Training",
        "",
        f"- {_plain(manifest.training['recipe'])}",
        f"- Epoch {manifest.training['chosen_epoch']} was kept, by the error on validation patients.",
        f"- {_plain(manifest.training['versions'])}; {manifest.training['processor']}",
        "",
    ]
    return "\n".join(lines)


def _tags(tags: object) -> list[str]:
    """Machine and technique of the patients that calibrated it, the commonest values of each tag."""
    if not isinstance(tags, Mapping):
        return []
    lines = ["", "Machine and technique, of the patients that it was calibrated on:", ""]
    for name, counts in tags.items():
        common = sorted(_object(counts).items(), key=lambda item: -int(str(item[1])))
        told = ", ".join(f"{value} ({count})" for value, count in common[:MOST_VALUES])
        rest = len(common) - MOST_VALUES
        lines.append(f"- {name.replace('_', ' ')}: {told}" + (f" and {rest} more values" if rest > 0 else ""))
    return lines


def _privacy(manifest: Manifest) -> list[str]:
    """What whoever passes the package on must know."""
    if manifest.kind is PackageKind.SYNTHETIC_DEMO:
        return []
    return [
        "",
        "## Whose data it holds",
        "",
        "- `golden/` holds the radiograph and the ECG of one or two held-out patients, without name or date: pass the",
        "  package on only as far as pictures of these patients may be passed on.",
    ]


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError("a figure with its interval is expected")
    return value


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {_plain(item)}" for key, item in value.items())
    return str(value)
