"""Secrets: found where the reference says, never shown, never repeated in an error."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import plugins
from holdfast.errors import SecretError
from holdfast.secrets import Secret, Secrets, Surroundings, parse

VALUE = "sk-proj-0123456789"


def secrets(folder: Path = Path(), **environment: str) -> Secrets:
    return Secrets(Surroundings(environment=environment, folder=folder))


def error_of(reference: str, source: Secrets) -> str:
    with pytest.raises(SecretError) as caught:
        source.resolve(reference)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text(f"  {VALUE}\n")
    (tmp_path / "key").chmod(0o600)
    return tmp_path


@pytest.mark.parametrize("source", plugins.names("secrets"))
def test_every_source_says_what_is_missing(source: str, tmp_path: Path) -> None:
    assert error_of(f"{source}:NO_SUCH_THING", secrets(tmp_path)).startswith(f"{source}:NO_SUCH_THING: ")


def test_a_variable_of_the_environment_is_found() -> None:
    assert secrets(KEY=VALUE).resolve("env:KEY").reveal() == VALUE


def test_a_file_is_found_from_the_folder_of_the_configuration_and_stripped(folder: Path) -> None:
    assert secrets(folder).resolve("file:key").reveal() == VALUE
    assert secrets().resolve(f"file:{folder / 'key'}").reveal() == VALUE


def test_what_was_resolved_is_remembered_for_redaction() -> None:
    source = secrets(KEY=VALUE)
    source.resolve("env:KEY")
    assert source.values == {VALUE}


def test_a_file_that_everyone_can_read_is_taken_with_a_caution(folder: Path) -> None:
    source = secrets(folder)
    source.resolve("file:key")
    assert source.cautions == []
    (folder / "key").chmod(0o644)
    source.resolve("file:key")
    assert source.cautions == ["file:key: every user of this machine can read the file; chmod 600 it"]


def test_a_secret_is_shown_by_nothing_but_reveal() -> None:
    class Options(msgspec.Struct):
        key: str

    secret = Secret(VALUE)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", "%s" % secret, repr(Options(secret)), str([secret])]  # noqa: UP031
    assert not any("sk-proj" in text for text in shown)
    assert type(secret.reveal()) is str
    assert secret == VALUE
    assert secret.encode() == VALUE.encode()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("env:MISSING", "env:MISSING: the environment variable MISSING is not set"),
        ("env:EMPTY", "env:EMPTY: the value is empty"),
        ("env:BROKEN", "env:BROKEN: the value holds characters that no request header can carry"),
        ("vault:a/b", "vault:a/b: the source vault is not supported by this version; known here: env, file"),
    ],
)
def test_an_error_names_the_reference_and_the_way_out(reference: str, message: str) -> None:
    assert error_of(reference, secrets(EMPTY=" \n", BROKEN="a\r\nx-evil:1")) == message


@pytest.mark.parametrize("literal", [VALUE, f"{VALUE}:more", f"Bearer {VALUE}", f":{VALUE}", "https://user:sk-proj-1@host"])
def test_what_may_be_the_key_itself_is_never_repeated(literal: str) -> None:
    message = error_of(literal, secrets())
    assert "sk-proj" not in message
    assert "env:" in message


def test_an_unknown_source_is_answered_with_the_nearest() -> None:
    assert error_of("envv:KEY", secrets()).endswith('; did you mean "env"?')


def test_a_file_that_holds_no_secret_is_refused(folder: Path) -> None:
    (folder / "large").write_text("x" * 100_000)
    (folder / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(folder / "pipe")
    assert "larger than 65536 bytes" in error_of("file:large", secrets(folder))
    assert "not UTF-8" in error_of("file:binary", secrets(folder))
    assert "there is no file" in error_of("file:pipe", secrets(folder))
    assert "there is no file" in error_of("file:.", secrets(folder))


@given(text=st.text(max_size=40))
def test_any_text_resolves_or_ends_in_a_secret_error(text: str) -> None:
    for reference in (text, f"file:{text}", f"env:{text}"):
        with pytest.raises(SecretError):
            secrets(Path("/nonexistent")).resolve(reference)


@given(name=st.text(min_size=1))
def test_a_reference_is_split_at_its_first_colon(name: str) -> None:
    assert parse(f"env:{name}") == ("env", name)
