"""Completion in a shell: what is offered, by a real bash where there is one, and without torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from interp.cli.inputs import bundled_names, complete_models
from interp.cli.main import COMMANDS, main


def offered(line: str, folder: Path) -> list[str]:
    """What argcomplete answers when this line is completed at its end; torch must not be loaded for it."""
    answer = folder / "answer"
    program = (
        "import sys, os\n"
        "real = os._exit\n"
        "def leave(code):\n    assert 'torch' not in sys.modules\n    real(code)\n"
        "os._exit = leave\n"
        "from interp.cli.main import main\nmain()\n"
    )
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return [word.strip() for word in answer.read_text().split("\n")]


def test_commands_options_models_and_values(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert offered("interp s", tmp_path) == ["score", "smear", "sample", "settings"]
    assert offered("interp score conv-attn-", tmp_path) == [name for name in bundled_names() if name.startswith("conv-attn-")]
    assert "--bidirectional" in offered("interp score conv-attn --b", tmp_path)
    assert offered("interp patch conv-attn --pairs i", tmp_path) == ["induction", "ioi"]


def test_models_are_bundled_names_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conv-mine").mkdir()
    (tmp_path / "conv.txt").write_text("")
    assert complete_models("conv-") == [*(name for name in bundled_names() if name.startswith("conv-")), "conv-mine/"]
    assert complete_models("conv-attn")[0] == "conv-attn"
    assert complete_models("nowhere/") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "interp" in script and "_ARGCOMPLETE" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_bash_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = tmp_path / "interp"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m interp "$@"\n')
    command.chmod(0o755)
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out + (
        '\nCOMP_LINE="interp cal"; COMP_POINT=10; COMP_TYPE=9; COMP_WORDS=(interp cal); COMP_CWORD=1\n'
        '_python_argcomplete interp cal interp; printf "%s|" "${COMPREPLY[@]}"\n'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert [word.strip() for word in done.stdout.split("|")] == ["calibrate", ""], done.stderr
    assert "calibrate" in COMMANDS
