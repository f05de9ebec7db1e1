"""`sparserl fit`: trains a truly sparse classifier on a table, or goes on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from sparserl.cli.running import Help, carry_out_command, parameters_of, result_table
from sparserl.recording.run_folder import RunFolder

HELP = Help(
    "Train a truly sparse network on a table of samples, or go on with a run. Values come from the schema's defaults, "
    "then the preset (that of the data, if it has one), then --config, then flags. --method, --density and --epsilon "
    "are short for --topology.method, ...",
    (
        *("data", "task", "scaling", "test_share", "validation_share", "seed", "threads"),
        *("preset", "config", "run_dir", "resume", "data_dir", "download", "progress", "dry_run", "track"),
        *("learner.hidden", "learner.activation", "learner.optimizer", "learner.learning_rate", "learner.momentum"),
        *("learner.weight_decay", "learner.dropout", "learner.epochs", "learner.batch_size"),
        *(
            "learner.class_weights",
            "learner.patience",
            "learner.ensemble",
            "topology.method",
            "topology.density",
            "topology.epsilon",
        ),
        *("topology.drop_fraction", "topology.update_interval", "topology.end_fraction"),
    ),
    "Methods: sparserl list methods. Presets: sparserl list presets.",
)


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl fit`; returns the exit status."""
    return carry_out_command("fit", arguments, HELP, _print_result)


def _print_result(result: dict[str, Any], folder: RunFolder) -> None:
    epochs = f"{result['epochs']} ({result['stopped']})"
    best = "" if result["epoch_best"] is None else f", epoch {result['epoch_best']}"
    connections = f"{result['connections']:,} of {result['connections_dense']:,} ({100 * result['density']:.3g} %)"
    best_loss = "" if result["loss_test_best"] is None else f"{result['loss_test_best']:.5f}"
    pace = f"{result['wall_s'] / result['epochs']:.3g} s an epoch, {result['steps_per_second']:.3g} steps/s"
    rows = {
        "test accuracy": _percent(result["accuracy_test"]),
        f"test accuracy, best by validation{best}": _percent(result["accuracy_test_best"]),
        "validation accuracy": _percent(result["accuracy_validation"]),
        "test loss": f"{result['loss_test']:.5f}",
        f"test loss, best by validation{best}": "" if result["accuracy_test"] is not None else best_loss,
        **_of_ensemble(result.get("ensemble")),
        "epochs": epochs,
        "connections": connections,
        "parameters": parameters_of(result),
        "training FLOPs": f"{result['flops_train']:.3g}",
        "wall time": f"{result['wall_s']:.1f} s, {pace}",
        "largest memory": f"{result['memory_peak_bytes'] / 1e9:.2f} GB",
        "plot": str(folder.path / "plot.png"),
    }
    Console().print(result_table(folder, rows))


def _of_ensemble(found: dict[str, Any] | None) -> dict[str, str]:
    if found is None:
        return {}
    each = ", ".join(_percent(accuracy) for accuracy in found["accuracies_test"])
    return {
        f"test accuracy, ensemble of {len(found['accuracies_test'])}": _percent(found["accuracy_test"]),
        "its members alone": each,
        "members disagree; KL divergence": f"{_percent(found['disagreement'])}; {found['kl_divergence']:.4f}",
        "calibration error; negative log-likelihood": (
            f"{found['calibration_error']:.4f}; {found['negative_log_likelihood']:.4f}"
        ),
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
