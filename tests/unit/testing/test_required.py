"""A skip that CI must not have is a failure there, and a skip elsewhere."""

from __future__ import annotations

import pytest

_TESTS = """
    import pytest

    @pytest.mark.peer
    def test_peer():
        pytest.skip("no such program")

    @pytest.mark.netns
    def test_netns():
        pytest.skip("no namespaces")

    def test_other():
        pytest.skip("for its own reasons")
"""
_INI = """
    [pytest]
    markers =
        peer: x
        netns: x
"""


@pytest.mark.parametrize(
    ("variables", "failed"),
    [({}, 0), ({"PROCONSUL_REQUIRE_PEERS": "1"}, 1), ({"CI": "true"}, 1)],
)
def test_required_tests_must_not_skip(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    failed: int,
) -> None:
    for name in ("CI", "PROCONSUL_REQUIRE_PEERS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pytester.makeini(_INI)
    pytester.makepyfile(_TESTS)
    result = pytester.runpytest_inprocess("-p", "proconsul.testing.required", "-p", "no:randomly")
    result.assert_outcomes(failed=failed, skipped=3 - failed)
