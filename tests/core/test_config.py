import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from core import config
from core.config import Config, DiskUsage, Overrides, Share, deferred_keys, find, load
from core.configtext import ArenaText, config_text
from core.errors import ConfigError
from core.types import Mark
from net import identity

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "realize.toml"
        path.write_text(text)
        return path

    return write


def problems(path: Path, *, offline_ok: bool = False, overrides: Overrides | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, env={}, offline_ok=offline_ok, overrides=overrides)
    return caught.value.problems


def problem(path: Path) -> str:
    found = problems(path)
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("certificates")
    return [identity.create(directory / f"{n}.pem").cert_pem for n in range(2)]


ARENA = '[[arena]]\nname = "docs"\nworkdir = "docs"\n'


def with_data(tmp_path: Path, text: str = "") -> str:
    (tmp_path / "data").mkdir(exist_ok=True)
    return ARENA + 'datadir = "data"\n' + text


def test_every_key_is_read(write: Write, tmp_path: Path, certificates: list[str]) -> None:
    (tmp_path / "store/data").mkdir(parents=True)
    (tmp_path / "server.pem").write_text(f"a comment\n{certificates[1]}")
    found = load(
        write(f"""
[node]
name = "laptop"
key = "keys/id.pem"
listen = ["localhost:9771", "[::1]:0"]
mount = "mnt"
allow_other = true
socket = "/run/x.sock"
[cache]
db = "~/c.db"
[[arena]]
name = "docs"
workdir = "store"
datadir = "store/data"
mountpoint = "overlay"
mark = "keep"
disk_usage = {{ max = "50%", leave = "1G" }}
debounce = "0ms"
max_parallel_hashers = 2
ignore = ["*.tmp", "/build/"]
min_copies = 2
[[peer]]
name = "server"
address = "server.local:9771"
cert = '''{certificates[0]}'''
arenas = ["docs"]
batch_rate_limit = "512K"
rate_limit = "10M"
[[peer]]
name = "deaf"
cert_file = "server.pem"
""")
    )
    node = found.node
    assert (node.name, node.key) == ("laptop", tmp_path / "keys/id.pem")
    assert node.listen == ("localhost:9771", "[::1]:0")
    assert (node.mount, node.allow_other) == (tmp_path / "mnt", True)
    assert node.socket == Path("/run/x.sock")
    assert found.cache_db == Path.home() / "c.db"
    (arena,) = found.arenas
    assert (arena.name, arena.workdir, arena.datadir) == ("docs", tmp_path / "store", tmp_path / "store/data")
    assert (arena.mountpoint, arena.mark) == (tmp_path / "overlay", Mark.KEEP)
    assert arena.disk_usage == DiskUsage(Share(0.5), 1 << 30)
    assert (arena.debounce_s, arena.max_parallel_hashers, arena.min_copies) == (0.0, 2, 2)
    assert arena.ignore == ("*.tmp", "/build/")
    server, deaf = found.peers
    assert (server.name, server.address, server.arenas) == ("server", "server.local:9771", ("docs",))
    assert (server.batch_rate_limit, server.rate_limit) == (512 << 10, 10 << 20)
    assert [peer.cert_pem for peer in found.peers] == certificates
    assert (deaf.address, deaf.arenas, deaf.rate_limit) == (None, None, None)
    assert deferred_keys(found) == (
        'arena "docs": mountpoint',
        'peer "server": batch_rate_limit',
        'peer "server": rate_limit',
    )


def test_an_empty_file_is_a_whole_config(write: Write, tmp_path: Path) -> None:
    found = load(write(""), env={"XDG_RUNTIME_DIR": "/run/user/7"})
    assert found.node.name == os.uname().nodename
    assert found.node.key == tmp_path / "identity.pem"
    assert found.node.listen == ()
    assert found.node.mount is None
    assert found.node.socket == Path("/run/user/7/realize/control.sock")
    assert found.cache_db == tmp_path / "cache.db"
    assert (found.arenas, found.peers, found.warnings, deferred_keys(found)) == ((), (), (), ())


def test_an_arena_has_the_defaults_of_the_specification(write: Write) -> None:
    (arena,) = load(write(ARENA)).arenas
    assert (arena.datadir, arena.mark, arena.disk_usage) == (None, Mark.WATCH, DiskUsage())
    assert (arena.debounce_s, arena.max_parallel_hashers, arena.min_copies) == (0.3, 4, 1)


def test_without_a_runtime_directory_the_socket_has_one_for_each_user() -> None:
    path = config.default_socket({"XDG_RUNTIME_DIR": "not/absolute"})
    assert path.is_absolute()
    assert str(os.getuid()) in path.parent.name


def test_the_file_is_found_by_option_then_environment_then_default(tmp_path: Path) -> None:
    env = {"REALIZE_CONFIG": "/e.toml", "XDG_CONFIG_HOME": "/xdg"}
    assert find(Path("/o.toml"), env) == Path("/o.toml")
    assert find(None, env) == Path("/e.toml")
    assert find(None, {"XDG_CONFIG_HOME": "/xdg"}) == Path("/xdg/realize/realize.toml")
    assert find(None, {"XDG_CONFIG_HOME": "relative"}) == Path.home() / ".config/realize/realize.toml"


# Errors: all at once, each with file, line, key, value and what is accepted


def test_all_errors_are_listed_at_once_in_the_order_of_the_lines(write: Write, tmp_path: Path) -> None:
    path = write("""\
nod = 1
[node]
naem = "x"
listen = [
  "foo",
  "h:99999",
]
[[arena]]
name = "docs"
workdir = "docs"
datadir = "gone"
debounce = "3x"
debouce = 4
mark = "kep"
disk_usage = { max = "150%", leeve = 1 }
[[arena]]
name = "docs/office"
max_parallel_hashers = 0
[[peer]]
name = "server"
cert = "abc"
arenas = ["dosc"]
rate_limit = 0
""")
    found = problems(path)
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in found] == (
        ["1", "3", "5", "6", "11", "12", "13", "14", "15", "15", "16", "17", "18", "21", "22", "23"]
    )
    for line, words in zip(
        found,
        [
            ["nod = 1", "unknown key", 'did you mean "node"?', "arena, cache, node, peer"],
            ['naem = "x"', 'did you mean "name"?'],
            ['listen[0] = "foo"', "port is missing", "host:port"],
            ['listen[1] = "h:99999"', "above 65535"],
            ['arena "docs"', 'datadir = "gone"', f"{tmp_path}/gone does not exist"],
            ['debounce = "3x"', "not a duration", '"500ms"'],
            ["debouce = 4", 'did you mean "debounce"?'],
            ['mark = "kep"', 'did you mean "keep"?', '"watch", "keep", "own"'],
            ['max = "150%"', "more than 100%", '"1.5G"'],
            ["leeve = 1", 'did you mean "leave"?', "leave, max"],
            ['arena "docs/office"', "workdir: is missing"],
            ['name = "docs/office"', 'inside the arena "docs"'],
            ["max_parallel_hashers = 0", "a whole number from 1"],
            ['cert = "abc"', "holds no certificate", "`realize id`"],
            ['arenas[0] = "dosc"', 'did you mean "docs"?'],
            ["rate_limit = 0", "a rate of 0"],
        ],
        strict=True,
    ):
        for word in words:
            assert word in line


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("# c\na =", 2, ["not TOML", "a ="]),
        ("[x", 1, ["not TOML", "[x"]),
        ("a = 1\na = 2", 2, ["not TOML", "a = 2"]),
        ('a = "x\nb = 3', 1, ["not TOML"]),
        ("\n\nx = [1,\n2", 4, ["not TOML"]),
    ],
)
def test_a_syntax_error_has_its_line_too(write: Write, text: str, line: int, words: list[str]) -> None:
    path = write(text)
    found = problem(path)
    assert found.startswith(f"{path}:{line}: ")
    for word in words:
        assert word in found


def test_a_file_that_is_not_text_is_told_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "realize.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    assert problem(path) == f"{path}:2: not UTF-8 text: byte 0xff"


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file") as caught:
        load(tmp_path / "realize.toml")
    assert "realize init" in caught.value.hint
    assert problem(tmp_path) == f"{tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("node = 1", "a [node] table"),
        ("[arena]\nname = 'x'", "[[arena]]"),
        ("arena = [1]", "[[arena]]"),
        ("peer = 'x'", "[[peer]]"),
        ("[node]\nlisten = 'localhost:1'", "is not a list"),
        ("[node]\nname = 1", "is not text"),
        ("[node]\nname = ''", "is empty"),
        ("[node]\nname = 'a/b'", "not a usable name"),
        ("[node]\nallow_other = 'yes'", "true or false"),
        ("[node]\nkey = '~nobody-of-that-name/x'", "unknown user's home"),
        ('[node]\nkey = "a\\u0000b"', "holds a NUL"),
        ("[cache]\ndb = []", "is not text"),
        (ARENA + "disk_usage = '50%'", "is not a table"),
        (ARENA + "disk_usage = { max = true }", "is not a size"),
        (ARENA + "max_parallel_hashers = true", "a whole number"),
        (ARENA + "min_copies = 0", "a whole number from 1"),
        (ARENA + "debounce = inf", "finite"),
        (ARENA + "ignore = ['!']", "not a gitignore pattern"),
        (ARENA + "ignore = [1]", "is not text"),
        (ARENA + "mountpoint = 'o'\ndatadir = '.'", "lies inside"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(write: Write, text: str, word: str) -> None:
    found = problems(write(text))
    assert any(word in line for line in found), found


@pytest.mark.parametrize("name", ["/docs", "docs/", "a//b", ".", "a/../b", "x" * 256, "a\\u0000"])
def test_an_arena_name_follows_the_rules_of_paths(write: Write, name: str) -> None:
    found = problem(write(f'[[arena]]\nname = "{name}"\nworkdir = "w"'))
    assert ":2: " in found
    assert "accepted: names joined by" in found


@pytest.mark.parametrize("name", ["docs", ".hidden", "a b", "a\\nb", "a:b", "a\\\\b", "päth/ü", "x" * 255])
def test_any_other_arena_name_is_allowed(write: Write, name: str) -> None:
    assert load(write(f'[[arena]]\nname = "{name}"\nworkdir = "w"')).arenas


def test_names_of_arenas_and_peers_are_unique(write: Write, certificates: list[str]) -> None:
    peers = [f"[[peer]]\nname = 'a'\ncert = '''{certificate}'''\n" for certificate in certificates]
    found = problems(write(ARENA + ARENA.replace('"docs"\n', '"other"\n', 1) + ARENA + "".join(peers)))
    assert any("has the name of another arena" in line for line in found)
    assert any("also the workdir of" in line for line in found)
    assert any("name of another peer" in line for line in found)


def test_a_control_character_in_a_value_cannot_forge_lines(write: Write) -> None:
    found = problem(write('[node]\nmount = "m"\n"e\\nvil\\u202e" = "\\u001b[31m"'))
    assert found.isprintable()


# Directories


def test_workdir_may_be_above_or_beside_the_datadir_but_not_inside(write: Write, tmp_path: Path) -> None:
    (tmp_path / "store/data").mkdir(parents=True)
    for workdir in ("store", "beside", "store/work dir"):
        assert load(write(f"[[arena]]\nname = 'a'\nworkdir = '{workdir}'\ndatadir = 'store/data'"))
    (tmp_path / "link").symlink_to("store/data")
    for workdir in ("store/data", "store/data/w", "link/w", "store/../store/data/w"):
        found = problem(write(f"[[arena]]\nname = 'a'\nworkdir = '{workdir}'\ndatadir = 'store/data'"))
        assert ":3: " in found
        assert "the datadir" in found


def test_a_datadir_among_our_own_files_is_refused(write: Write, tmp_path: Path) -> None:
    (tmp_path / "w/blobs/x").mkdir(parents=True)
    assert "inside blobs/" in problem(write("[[arena]]\nname = 'a'\nworkdir = 'w'\ndatadir = 'w/blobs/x'"))


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second filesystem")
def test_datadir_and_workdir_are_on_one_filesystem(write: Write, tmp_path: Path) -> None:
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("one filesystem only")
    found = problem(write(with_data(tmp_path).replace('workdir = "docs"', 'workdir = "/dev/shm/none/w"')))
    assert "is not on the filesystem of the datadir" in found


def test_a_missing_datadir_is_a_warning_once_the_arena_was_used(write: Write, tmp_path: Path) -> None:
    path = write(ARENA + 'datadir = "gone"')
    assert "does not exist" in problems(path, offline_ok=True)[0]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/arena.db").touch()
    assert f"{tmp_path}/gone does not exist" in problem(path)
    (warning,) = load(path, offline_ok=True).warnings
    assert warning.startswith(f"{path}:4: ")
    assert "offline" in warning


def test_a_datadir_that_is_a_file_is_refused(write: Write, tmp_path: Path) -> None:
    (tmp_path / "gone").touch()
    assert "is not a directory" in problem(write(ARENA + 'datadir = "gone"'))
    (tmp_path / "docs").touch()
    assert "is not a directory" in problem(write(ARENA))


def test_arenas_do_not_share_directories(write: Write, tmp_path: Path) -> None:
    other = "[[arena]]\nname = 'b'\n"
    assert "also the datadir of" in problem(write(with_data(tmp_path, f"{other}workdir='w'\ndatadir='data'")))
    inside = f"{other}workdir='data/w'\n"
    assert 'lies inside the datadir of the arena "docs"' in problem(write(with_data(tmp_path, inside)))


def test_the_mount_is_apart_from_everything(write: Write, tmp_path: Path) -> None:
    for mount in ("data", "data/mnt", "."):
        found = problems(write(f"[node]\nmount = '{mount}'\n" + with_data(tmp_path)))
        assert any("inside" in line for line in found), mount
    assert load(write("[node]\nmount = 'mnt'\n" + with_data(tmp_path)))


def test_an_overlay_needs_a_datadir_and_the_mount(write: Write, tmp_path: Path) -> None:
    assert "[node] has no mount" in problem(write(with_data(tmp_path, 'mountpoint = "o"')))
    found = problem(write("[node]\nmount = 'm'\n" + ARENA + 'mountpoint = "o"'))
    assert "has no datadir" in found
    assert ":6: " in found
    inside = "[node]\nmount = 'm'\n" + with_data(tmp_path, 'mountpoint = "m/o"')
    assert "lies inside the mount" in problem(write(inside))


def test_the_private_key_is_never_in_a_datadir(write: Write, tmp_path: Path) -> None:
    found = problem(write("[node]\nkey = 'data/id.pem'\n" + with_data(tmp_path)))
    assert "where peers would see it" in found
    assert "where peers would see it" in problem(write("[cache]\ndb = 'data/c.db'\n" + with_data(tmp_path)))


def test_what_the_command_line_overrides_is_checked_like_the_file(write: Write, tmp_path: Path) -> None:
    path = write("[node]\nlisten = ['h:1']\n" + with_data(tmp_path, 'mountpoint = "o"'))
    overrides = Overrides(mount=tmp_path / "m", listen=("h:2",), socket=Path("/s"), metrics_addr="h:3")
    found = load(path, overrides=overrides)
    assert (found.node.mount, found.node.listen, found.node.socket) == (tmp_path / "m", ("h:2",), Path("/s"))
    assert found.overrides is overrides
    assert "--metrics-addr" in deferred_keys(found)
    inside = problems(path, overrides=Overrides(mount=tmp_path / "data"))
    assert any("inside" in line for line in inside)


# Peers


def peer(certificate: str, more: str = "") -> str:
    return f"[[peer]]\nname = 'p'\ncert = '''{certificate}'''\n{more}"


def test_a_certificate_comes_from_one_place(write: Write, certificates: list[str], tmp_path: Path) -> None:
    assert "cert: is missing" in problem(write("[[peer]]\nname = 'p'"))
    (tmp_path / "x.pem").write_text(certificates[0])
    both = write(peer(certificates[0], "cert_file = 'x.pem'"))
    assert "one of cert and cert_file" in problem(both)
    missing = problem(write("[[peer]]\nname = 'p'\ncert_file = 'y.pem'"))
    assert "cannot be read" in missing
    assert f"{tmp_path}/y.pem" in missing


def test_a_certificate_is_the_peers_own(write: Write, certificates: list[str], tmp_path: Path) -> None:
    second = peer(certificates[0]).replace("'p'", "'q'")
    assert 'also the certificate of the peer "p"' in problem(write(peer(certificates[0]) + second))
    own = identity.create(tmp_path / "identity.pem")
    assert "this host's own certificate" in problem(write(peer(own.cert_pem)))


def test_a_damaged_certificate_is_refused(write: Write, certificates: list[str]) -> None:
    lines = certificates[0].splitlines()
    damaged = "\n".join([lines[0], lines[2], *lines[1:]])
    assert "not a valid certificate" in problem(write(peer(damaged)))
    assert "holds 2 certificates" in problem(write(peer("".join(certificates))))


def test_a_private_key_beside_a_certificate_is_warned_about(write: Write, tmp_path: Path) -> None:
    identity.create(tmp_path / "peer.pem")
    found = load(write("[[peer]]\nname = 'p'\ncert_file = 'peer.pem'"))
    assert "PRIVATE" not in found.peers[0].cert_pem
    assert "private key" in found.warnings[0]


def test_an_address_to_dial_has_a_port(write: Write, certificates: list[str]) -> None:
    assert "port 0 cannot be dialled" in problem(write(peer(certificates[0], "address = 'h:0'")))


# The socket and the key alone


def test_socket_and_key_are_found_in_a_config_that_is_wrong_elsewhere(write: Write, tmp_path: Path) -> None:
    path = write("wrong = 1\n[node]\nsocket = 's'\nkey = 'k'\nlisten = 3")
    assert config.socket_of(path, {}) == tmp_path / "s"
    assert config.key_of(path) == tmp_path / "k"
    with pytest.raises(ConfigError, match="socket = 3: is not text"):
        config.socket_of(write("[node]\nsocket = 3"), {})


# The text of a new config


def test_a_new_config_is_read_back(write: Write, tmp_path: Path) -> None:
    names = ["docs", 'q"uo\\te', "new\nline", "del\x7f"]
    for index in range(len(names)):
        (tmp_path / f"d{index}").mkdir()
    arenas = [ArenaText(name, f"w{index}", f"d{index}") for index, name in enumerate(names)]
    text = config_text(name="härt", key="k.pem", listen=["[::1]:1"], arenas=arenas)
    found: Config = load(write(text))
    assert [arena.name for arena in found.arenas] == names
    assert (found.node.name, found.node.listen) == ("härt", ("[::1]:1",))


def test_the_commented_examples_of_a_new_config_are_valid_keys() -> None:
    text = config_text(name="n", key="k", listen=[], arenas=[])
    keys = ("name", "workdir", "datadir", "mark", "listen", "mount", "address", "cert_file", "arenas", "[[")
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith(tuple(f"# {key}" for key in keys)) else line
        for line in text.splitlines()
    )
    data = tomllib.loads(uncommented)
    assert data["node"]["listen"] == ["0.0.0.0:9771"]
    assert data["arena"][0]["datadir"] == "docs/data"
    assert data["peer"][0]["arenas"] == ["docs"]


def test_a_name_that_is_not_text_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        config_text(name="a\udcff", key="k", listen=[], arenas=[])
