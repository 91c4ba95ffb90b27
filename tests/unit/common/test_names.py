"""Names of models: the rule, and that subjects and keys keep them apart."""

import re

import pytest
from adlik_common.errors import InvalidName
from adlik_common.names import check_model_name, token, untoken, version_key
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)


@given(NAMES)
def test_a_token_comes_back_and_is_one_token_of_a_subject(name):
    assert check_model_name(name) == name
    assert untoken(token(name)) == name
    # What NATS allows in a key, without the separator and the wildcards.
    assert re.fullmatch(r"[-/_=A-Za-z0-9]+", token(name))


@given(NAMES, NAMES, st.integers(1, 10**9), st.integers(1, 10**9))
def test_keys_are_equal_only_for_the_same_version(one, other, first, second):
    same_key = version_key(one, first) == version_key(other, second)
    assert same_key == ((one, first) == (other, second))


@given(st.text())
def test_exactly_the_names_of_the_rule_are_accepted(name):
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        assert check_model_name(name) == name
    else:
        with pytest.raises(InvalidName, match="is no model name"):
            check_model_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".hidden", "-x", "a b", "a/b", "a*", "a>", "a\n", "ä", "a\0", "a=2E", "x" * 129, "../a"],
)
def test_hostile_names_are_refused_by_everything_that_builds_a_key(name):
    for build in (check_model_name, token, lambda n: version_key(n, 1)):
        with pytest.raises(InvalidName):
            build(name)


def test_a_long_wrong_name_is_shortened_in_the_message():
    with pytest.raises(InvalidName) as caught:
        check_model_name("/" * 10_000)
    assert len(str(caught.value)) < 300
