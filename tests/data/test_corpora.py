"""Opening corpora: the embedded one, files, folders, saved datasets, and a Hub that cannot be reached."""

from pathlib import Path

import datasets
import pytest

from interp.data import Corpus, load_corpus
from interp.data.cache import cached_text
from interp.data.hub import only_cached
from interp.data.python_docs import python_docs
from interp.errors import DataError

Built = tuple[Corpus, Corpus, set[str]]
WIKITEXT = Path(__file__).parents[2] / ".." / "shared" / "data" / "wikitext-2"
PASSAGE = "\n".join(f"line {i} of the text, {i * i} words long" for i in range(200))


def paragraphs(texts: tuple[str, ...]) -> set[str]:
    return {line.strip() for text in texts for line in text.split("\n") if len(line.strip()) >= 60}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


class TestPythonDocs:
    def test_is_about_two_megabytes_split_near_90_5_5(self, built: Built) -> None:
        sizes = built[0].n_characters
        total = sum(sizes.values())
        assert 1.2e6 < total < 4e6
        assert 0.86 < sizes["train"] / total < 0.91
        assert all(0.049 < sizes[split] / total < 0.08 for split in ("validation", "test"))

    def test_building_imports_nothing_and_the_cache_gives_the_same(self, built: Built) -> None:
        fresh, cached, imported = built
        assert fresh == cached
        assert not imported

    def test_no_document_and_hardly_a_line_stands_in_two_splits(self, built: Built) -> None:
        corpus = built[0]
        assert not set(corpus.train) & {*corpus.validation, *corpus.test}
        assert not set(corpus.validation) & set(corpus.test)
        # whole paragraphs are unique by construction; what is left are single stock lines inside different paragraphs
        held = paragraphs(corpus.validation) | paragraphs(corpus.test)
        assert len(held & paragraphs(corpus.train)) < 0.02 * len(held)

    def test_holds_topics_and_docstrings_without_blank_lines(self, built: Built) -> None:
        texts = [*built[0].train, *built[0].validation, *built[0].test]
        assert any('The "assert" statement' in text for text in texts)
        assert sum(text.startswith("module difflib\n") for text in texts) == 1
        assert all(line.strip() for text in texts for line in text.split("\n"))
        assert len({text.split("\n")[0] for text in texts}) > 400

    def test_another_seed_holds_out_other_documents(self, monkeypatch: pytest.MonkeyPatch) -> None:
        documents = [(f"module {i}", f"text of {i}") for i in range(200)]
        monkeypatch.setattr("interp.data.corpora.python_docs", lambda _: documents)
        first, second = load_corpus("python-docs"), load_corpus("python-docs", split_seed=1)
        assert set(first.test) != set(second.test)
        assert first.fingerprint != second.fingerprint

    def test_python_without_sources_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
        with pytest.raises(DataError, match=r"this Python keeps no readable standard library in"):
            load_corpus("python-docs")

    def test_odd_sources_are_read_or_passed_over(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        shared = "A paragraph long enough to count when it stands in two places."
        sources = {
            "abc.py": f'"""First.\n\n{shared}"""\nclass A(int):\n    async def f(self, x=1):\n        """Does f."""\n',
            "bisect.py": f'"""Second.\n\n{shared}\n\nLone \\ud800 surrogate."""\nraise SystemExit("never run")\n',
            "cmd.py": "this is not Python",
            "test/inside.py": '"""A test."""',
            "stray.py": '"""Not of the standard library."""',
        }
        for name, text in sources.items():
            write(tmp_path / name, text)
        (tmp_path / "copy.py").write_bytes(b'# coding: latin-1\n"""Caf\xe9."""')
        monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
        assert python_docs(tmp_path / "cache") == [
            ("abc", f"module abc\nFirst.\n{shared}\nA.f(self, x=1)\nDoes f."),
            ("bisect", "module bisect\nSecond.\nLone ? surrogate."),
            ("copy", "module copy\nCaf\u00e9."),
        ]


class TestCache:
    @pytest.mark.parametrize("damage", [b"", b"nonsense", b"0" * 64 + b"\nwrong sum", b"\xff\xfe\n\xff"])
    def test_damaged_file_is_rebuilt(self, tmp_path: Path, damage: bytes) -> None:
        path = tmp_path / "deep" / "file.json"
        assert cached_text(path, lambda: "first ü") == "first ü"
        assert cached_text(path, lambda: "second") == "first ü"
        path.write_bytes(damage)
        assert cached_text(path, lambda: "third") == "third"
        assert cached_text(path, lambda: "fourth") == "third"
        assert list(path.parent.iterdir()) == [path]  # no temporary file stays behind

    def test_failed_build_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            cached_text(tmp_path / "file", lambda: str(1 // 0))
        assert list(tmp_path.iterdir()) == []

    def test_folder_that_cannot_be_written_costs_only_time(self, tmp_path: Path) -> None:
        blocked = write(tmp_path / "a file", "in the way")
        assert cached_text(blocked / "inside", lambda: "built") == "built"


class TestFiles:
    def test_single_file_is_cut_into_contiguous_blocks(self, tmp_path: Path) -> None:
        corpus = load_corpus(str(write(tmp_path / "notes.weird", PASSAGE.replace("\n", "\n \n"))))
        (train,), (validation,), (test,) = corpus.train, corpus.validation, corpus.test
        assert f"{train}\n{validation}\n{test}" == PASSAGE
        assert 0.85 < len(train) / len(PASSAGE) < 0.91

    def test_fingerprint_follows_the_contents_not_the_path(self, tmp_path: Path) -> None:
        first, copy = (load_corpus(str(write(tmp_path / name, PASSAGE))) for name in ("a.txt", "b.txt"))
        changed = load_corpus(str(write(tmp_path / "c.txt", PASSAGE.replace("line 199", "line 198"))))
        assert first.fingerprint == copy.fingerprint != changed.fingerprint

    def test_folder_uses_files_named_after_splits(self, tmp_path: Path) -> None:
        for name, text in {"train-0.txt": "a", "train-1.md": "b", "valid.txt": "c", "test/x.rst": "d", "image.png": "e"}.items():
            write(tmp_path / name, text)
        corpus = load_corpus(str(tmp_path))
        assert (corpus.train, corpus.validation, corpus.test) == (("a", "b"), ("c",), ("d",))

    def test_folder_without_test_holds_it_out_of_train(self, tmp_path: Path) -> None:
        write(tmp_path / "train.txt", PASSAGE)
        write(tmp_path / "validation.txt", "kept")
        corpus = load_corpus(str(tmp_path))
        assert corpus.validation == ("kept",)
        assert f"{corpus.train[0]}\n{corpus.test[0]}" == PASSAGE

    def test_file_outside_every_split_is_refused_by_name(self, tmp_path: Path) -> None:
        write(tmp_path / "train.txt", "a")
        write(tmp_path / "trainer.py", "b")
        with pytest.raises(DataError, match=r"1 name none \(trainer.py\)"):
            load_corpus(str(tmp_path))

    def test_folder_of_many_files_is_split_by_file(self, tmp_path: Path) -> None:
        texts = {write(tmp_path / f"{i % 3}" / f"{i}.py", f"x = {i}\ny = {i + 1}").read_text() for i in range(60)}
        write(tmp_path / ".git" / "hidden.txt", "hidden")
        corpus = load_corpus(str(tmp_path))
        assert set(corpus.train) | set(corpus.validation) | set(corpus.test) == texts
        assert len(corpus.train) + len(corpus.validation) + len(corpus.test) == 60
        assert len(corpus.test) in (3, 4)

    def test_wikitext_folder(self) -> None:
        if not WIKITEXT.is_dir():
            pytest.skip("needs ../shared/data/wikitext-2, which a fresh clone does not have")
        corpus = load_corpus(str(WIKITEXT))
        assert all(text.startswith(" = ") for text in (*corpus.train, *corpus.validation, *corpus.test))
        assert len(corpus.train) + len(corpus.validation) + len(corpus.test) > 100
        assert not paragraphs(corpus.train) & paragraphs(corpus.test)

    def test_not_utf8_names_file_and_byte(self, tmp_path: Path) -> None:
        write(tmp_path / "good.txt", "good")
        (tmp_path / "latin.txt").write_bytes("caf\u00e9 noir".encode("latin1"))
        with pytest.raises(DataError, match=r"latin.txt': it is not UTF-8: byte 0xe9 at offset 3 "):
            load_corpus(str(tmp_path))

    @pytest.mark.parametrize("text", ["", " \n\n\t\n"])
    def test_empty_file(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(DataError, match=r"empty.txt': it has no text"):
            load_corpus(str(write(tmp_path / "empty.txt", text)))

    def test_empty_split_is_named(self, tmp_path: Path) -> None:
        write(tmp_path / "train.txt", PASSAGE)
        write(tmp_path / "test.txt", " ")
        with pytest.raises(DataError, match=r"its split 'test' has no text"):
            load_corpus(str(tmp_path))

    def test_folder_without_text_files(self, tmp_path: Path) -> None:
        write(tmp_path / "data.bin", "x")
        with pytest.raises(DataError, match=r"holds no text files\. Files must end in .*\.txt"):
            load_corpus(str(tmp_path))

    def test_missing_path_suggests_its_neighbour(self, tmp_path: Path) -> None:
        write(tmp_path / "corpus.txt", "x")
        with pytest.raises(DataError, match=r"no such file or folder. Did you mean 'corpus.txt'\?"):
            load_corpus(str(tmp_path / "corpsu.txt"))
        with pytest.raises(DataError, match=r"its folder .* is missing too"):
            load_corpus(str(tmp_path / "no" / "corpus.txt"))

    def test_misspelt_relative_path_is_not_looked_up_on_the_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "texts" / "novels").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=r"Did you mean 'novels'\?"):
            load_corpus("texts/novel")

    @pytest.mark.parametrize(("name", "hint"), [("python_docs", "python-docs"), ("wikitext-2", "wikitext-2-raw-v1")])
    def test_unknown_name_suggests_the_nearest(self, name: str, hint: str) -> None:
        with pytest.raises(DataError, match=rf"corpus '{name}': there is no .*Did you mean '{hint}'\?"):
            load_corpus(name)


class TestDatasets:
    def test_saved_dataset_dict_keeps_its_splits(self, tmp_path: Path) -> None:
        splits = {"train": ["a\n\nb", "", "c"], "validation": ["d"], "test": ["e", "f"], "unsupervised": ["g"]}
        datasets.DatasetDict({k: datasets.Dataset.from_dict({"text": v}) for k, v in splits.items()}).save_to_disk(
            tmp_path / "saved"
        )
        corpus = load_corpus(str(tmp_path / "saved"))
        assert (corpus.train, corpus.validation, corpus.test) == (("a\nb", "c"), ("d",), ("e", "f"))

    def test_saved_dataset_is_split_by_row(self, tmp_path: Path) -> None:
        rows = [f"review number {i:03d}" for i in range(100)]
        datasets.Dataset.from_dict({"review": rows, "stars": list(range(100))}).save_to_disk(tmp_path / "saved")
        corpus = load_corpus(str(tmp_path / "saved"))
        assert sorted(corpus.train + corpus.validation + corpus.test) == rows
        assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (90, 5, 5)

    def test_unclear_column_is_an_error_that_lists_them(self, tmp_path: Path) -> None:
        datasets.Dataset.from_dict({"title": ["a"], "body": ["b"]}).save_to_disk(tmp_path / "saved")
        with pytest.raises(DataError, match=r"no column 'text' and 2 columns of strings \(title, body\)"):
            load_corpus(str(tmp_path / "saved"))

    def test_no_train_split_lists_what_there_is(self, tmp_path: Path) -> None:
        rows = datasets.Dataset.from_dict({"text": ["a"]})
        datasets.DatasetDict({"validation": rows, "test": rows}).save_to_disk(tmp_path / "saved")
        with pytest.raises(DataError, match=r"no split 'train', only validation, test"):
            load_corpus(str(tmp_path / "saved"))

    def test_damaged_folder(self, tmp_path: Path) -> None:
        datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
        next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"damaged")
        with pytest.raises(DataError, match=r"saved dataset .*cannot be opened"):
            load_corpus(str(tmp_path / "saved"))

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("wikitext-2-raw-v1", ("Salesforce/wikitext", "wikitext-2-raw-v1")),
            ("some-owner/some.name", ("some-owner/some.name", None)),
            ("owner/name:config-1", ("owner/name", "config-1")),
        ],
    )
    def test_hub_names_reach_datasets(
        self, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, str | None]
    ) -> None:
        asked = []
        lines = ["", " = A = \n", "text\n", " = B = \n", "more\n"]
        splits = {k: datasets.Dataset.from_dict({"text": [*lines, k]}) for k in ("train", "validation", "test")}
        monkeypatch.setattr(datasets, "load_dataset", lambda *given: asked.append(given) or datasets.DatasetDict(splits))
        corpus = load_corpus(name)
        assert asked == [arguments]
        assert corpus.validation == (" = A = \ntext", " = B = \nmore\nvalidation")

    @pytest.mark.parametrize("name", ["wikitext-2-raw-v1", "owner/name", "owner/name:config"])
    def test_offline_says_so_at_once_and_names_what_works(self, name: str) -> None:
        with pytest.raises(DataError, match=r"Hub cannot be reached.*HF_HUB_OFFLINE.*Use 'python-docs'.*the path of a text file"):
            load_corpus(name)

    def test_unreachable_hub_gives_up_without_retries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
        with pytest.raises(DataError, match=r"http://127.0.0.1:9 does not answer"):
            load_corpus("owner/name")

    def test_offline_switch_is_put_back_after_an_exception(self) -> None:
        from huggingface_hub import constants

        before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
        with pytest.raises(ZeroDivisionError), only_cached():
            assert constants.HF_HUB_OFFLINE
            assert datasets.config.HF_HUB_OFFLINE
            _ = 1 // 0
        assert before == (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)

    def test_hub_refusal_keeps_its_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise ValueError("BuilderConfig 'x' not found.\nAvailable: ['plain']")

        monkeypatch.setattr("interp.data.hub.why_unreachable", lambda: None)
        monkeypatch.setattr(datasets, "load_dataset", refuse)
        with pytest.raises(
            DataError, match=r"did not give it \(ValueError: BuilderConfig 'x' not found. Available: \['plain'\]\)"
        ):
            load_corpus("owner/name:x")
