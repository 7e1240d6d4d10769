"""What is left out of KEDA's source before it is compiled: scalers that nobody here uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kubernetes import keda_source
from tests.unit.deploy import kustomize

TABLE = """\
	switch triggerType {
	case "activemq":
		return scalers.NewActiveMQScaler(config)
	case "cpu":
		return scalers.NewCPUMemoryScaler(corev1.ResourceCPU, config)
	case "metrics-api":
		return scalers.NewMetricsAPIScaler(config, client)
	case "redis-streams":
		return scalers.NewRedisStreamsScaler(ctx, false, false, config)
	default:
		return nil, fmt.Errorf("no scaler found for type: %s", triggerType)
	}
"""


def test_what_our_triggers_use_is_kept() -> None:
    used = {
        trigger["type"]
        for overlay in kustomize.OVERLAYS
        for scaled in kustomize.of_kind(overlay, "ScaledObject")
        for trigger in scaled["spec"]["triggers"]
    }
    assert used == keda_source.SCALERS.keys()


def test_the_table_has_ours_and_the_answer_to_all_others() -> None:
    assert (
        keda_source.without_other_scalers(TABLE)
        == """\
	switch triggerType {
	case "metrics-api":
		return scalers.NewMetricsAPIScaler(config, client)
	default:
		return nil, fmt.Errorf("no scaler found for type: %s", triggerType)
	}
"""
    )


def test_a_keda_without_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="no scaler metrics-api"):
        keda_source.without_other_scalers(TABLE.replace("metrics-api", "metrics"))


def test_other_scalers_and_tests_are_not_copied_and_nothing_is_read_only(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    files = {
        "go.mod": "module keda",
        "pkg/scalers/scaler.go": "package scalers",
        "pkg/scalers/metrics_api_scaler.go": "package scalers",
        "pkg/scalers/redis_scaler.go": "package scalers",
        "pkg/scalers/azure/cloud.go": "package azure",
        "pkg/scalers/scaler_test.go": "package scalers",
        "pkg/scaling/scalers_builder.go": TABLE,
    }
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
        (source / name).chmod(0o444)
    keda_source.copy(source, target)
    left_out = {"pkg/scalers/redis_scaler.go", "pkg/scalers/scaler_test.go"}
    copied = {str(file.relative_to(target)) for file in target.rglob("*") if file.is_file()}
    assert copied == files.keys() - left_out
    assert all(file.stat().st_mode & 0o200 for file in target.rglob("*"))
