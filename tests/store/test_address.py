"""REDIS_URL: what it may say, and what is told of one that cannot be read."""

import pytest

from service.store import Address


@pytest.mark.parametrize(
    ("url", "kind", "hosts"),
    [
        ("redis://localhost", "node", (("localhost", 6379),)),
        ("rediss://user:pass@redis.example.org:6380/3", "node", (("redis.example.org", 6380),)),
        ("redis://[::1]:7000", "node", (("::1", 7000),)),
        ("unix:///run/redis.sock", "node", ()),
        ("redis+sentinel://a,b:26380/main/2", "sentinel", (("a", 26379), ("b", 26380))),
        ("rediss+sentinel://:pass@a:1/main", "sentinel", (("a", 1),)),
        ("redis+cluster://user:pass@a:7000,b:7001,c", "cluster", (("a", 7000), ("b", 7001), ("c", 6379))),
        ("rediss+cluster://a", "cluster", (("a", 6379),)),
    ],
)
def test_each_kind_of_redis_is_known_by_its_scheme(url, kind, hosts):
    address = Address.read(url)

    assert (address.kind, address.hosts) == (kind, hosts)


def test_the_login_and_the_options_go_to_every_server():
    address = Address.read("rediss+sentinel://ada:s%2Fcret@a,b/main/2?ssl_ca_certs=/ca.pem")

    assert address.master == "main"
    assert {name: address.options[name] for name in ("username", "password", "db", "ssl_ca_certs")} == {
        "username": "ada", "password": "s/cret", "db": 2, "ssl_ca_certs": "/ca.pem",
    }  # fmt: skip
    assert address.sentinel_options["ssl_ca_certs"] == "/ca.pem"


def test_sentinels_have_a_login_of_their_own():
    address = Address.read("redis+sentinel://ada:secret@a/main?sentinel_username=watch&sentinel_password=w%40rd")

    assert (address.sentinel_options["username"], address.sentinel_options["password"]) == ("watch", "w@rd")
    assert "ada" not in str(address.sentinel_options)
    assert not any(name.startswith("sentinel") for name in address.options)


def test_it_shows_no_password():
    assert "secret" not in repr(Address.read("redis+sentinel://:secret@a/main?sentinel_password=secret"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("localhost:6379", "must begin with redis://"),
        ("http://localhost", "must begin with redis://"),
        ("redis://a,b", "names several servers"),
        ("redis+sentinel://a,b", "lacks the name of the master"),
        ("redis+cluster://a/3", "cannot name a database"),
        ("redis+cluster://", "names no server"),
        ("redis://:pass/word@host", "cannot be read"),
        ("redis://:pass#word@host", "cannot be read"),
        ("redis://host:99999", "a port is a number from 1 to 65535"),
        ("redis://host:port/0", "a port is a number from 1 to 65535"),
        ("redis://host/zero", "is no number of a database"),
        ("redis://host?socket_timeout=100", "not for you to set: socket_timeout"),
        ("redis://host?colour=red", "an option that does not fit"),
        ("redis+sentinel://a/main?sentinel_colour=red", "options that nobody knows: sentinel_colour"),
    ],
)
def test_what_cannot_be_read_is_told_in_words_without_the_password(url, told):
    with pytest.raises(ValueError, match=told) as refused:
        Address.read(url)

    assert "word@" not in str(refused.value)
