"""Every function that `usdtkit list` shows can be traced by the name that it shows, which means that function alone.

The programs have names of all forms that compilers make. Addresses are those that nm finds.
"""

import json
import random
import re
import subprocess

import pytest
from commandline import usdtkit
from programs.golang import DEBIAN, NEWEST, STRIPPED

from usdtkit import trace
from usdtkit.elf.demangle import without_arguments, without_copy
from usdtkit.errors import NotFoundError, UsdtkitError
from usdtkit.language.hooks import Setup
from usdtkit.language.parser import parse_distribution, parse_pattern, parse_target, parse_trace
from usdtkit.language.select import resolve
from usdtkit.naming import exact, quoted

PROGRAMS = ("c", "c-lto", "c++", "rust", "rust-v0", "go")
SAMPLE = 40


@pytest.fixture(scope="module")
def program(compile_c, compile_file, request, tmp_path_factory):
    """program(NAME) -> the path of one of PROGRAMS."""
    sources = request.config.rootpath / "tests" / "programs"

    def build(name):
        if name.startswith("c-") or name == "c":
            path = tmp_path_factory.mktemp("names") / name
            flags = ["-O2", "-flto"] if name == "c-lto" else ["-O2"]
            files = [sources / "names.c", sources / "names_other.c"]
            subprocess.run(["gcc", *flags, "-Wall", "-Werror", *files, "-o", path], check=True)
            return str(path)
        if name == "c++":
            return str(compile_c("names.cc", "-O2", "-std=c++17", compiler="g++"))
        if name == "go":
            return str(compile_file(["go", "build"], sources / "names.go"))
        mangling = ["-Csymbol-mangling-version=v0"] if name == "rust-v0" else []
        return str(compile_file(["rustc", "-O", *mangling], sources / "names.rs"))

    return build


def listed(path, pattern="*"):
    """The rows of `usdtkit list --functions`."""
    done = usdtkit("list", "--json", "--functions", pattern, path)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[1:]]


def addresses(path):
    """(address, name) of the functions that nm shows."""
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {(int(line[:16], 16), line[19:]) for line in lines if line[17] in "tTwW" and line[0] != " "}


def pattern(session, text):
    """The places of a pattern, as tools find them."""
    (hook,) = Setup(session).counting(text)
    return hook.resolved


def explained(spec):
    """The addresses of the functions that `--explain` shows for a spec, in process."""
    with trace.Session() as session:
        places = session.source(pattern(session, spec)).resolved.user_places
        assert [site.name for site in session.plan()] == [place.name for place in places]
        return {place.function.address for place in places}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_listed_means_that_function(program, name):
    path = program(name)
    rows, known = listed(path), addresses(path)
    assert len(rows) >= 25
    for row in rows:
        assert (row["address"], row["name"]) in known
        assert explained(row["spec"]) == {row["address"]}, row["spec"]
        target = parse_target(row["spec"], 0, len(row["spec"]))
        assert parse_trace(f"{row['spec']} (arg1 > 1)").target == target
        assert parse_pattern(f"{row['spec']} (arg1 > 1)").target == target
        assert parse_distribution(f"{row['spec']}()").target == target
    assert len({row["spec"] for row in rows}) == len(rows)
    left_out = {name for _, name in known - {(row["address"], row["name"]) for row in rows} if ".cold" not in name}
    assert not [name for name in left_out if any(word in name for word in ("main", "shop", "names", "helper"))]


@pytest.mark.parametrize("compiler", [DEBIAN, NEWEST], ids=["debian", "newest"])
def test_a_go_program_without_symbols(build_go, compiler):
    """The older compiler leaves the types of generic functions out, so that several have one name."""
    path = build_go(STRIPPED, compiler=compiler)
    own, others = listed(path, "main.*"), listed(path, "runtime.*")
    for row in [*own, *random.Random(997).sample(others, SAMPLE)]:
        assert explained(row["spec"]) == {row["address"]}, row["spec"]
    assert len(own) > 15
    instances = {row["address"] for row in own if row["name"].startswith("main.Map[")}
    assert explained(f"{path}:main.Map") == instances
    assert len(instances) == 2


@pytest.mark.parametrize("name", ["c++", "rust", "rust-v0"])
def test_names_in_the_source(program, name):
    """A name in the source means every function that has it, and all instances of it, if there are also such."""
    path = program(name)
    by_name, rows = {}, listed(path)
    symbols = {row["name"] for row in rows}
    for row in rows:
        # The name does not mean a copy beside the function itself.
        symbol = re.sub(r"\.(llvm|isra|constprop|part|lto_priv)\..*", "", row["name"])
        if symbol == row["name"] or symbol not in symbols:
            by_name.setdefault(without_copy(row["demangled"]), set()).add(row["address"])
    del by_name[""]
    own = [name for name in by_name if any(word in name for word in ("names", "shop", "main", "twice", "_km"))]
    for name in {*own, *random.Random(997).sample(sorted(by_name), SAMPLE if len(by_name) > SAMPLE else len(by_name))}:
        found = explained(f"p:{path}:{quoted(name)}")
        instances = set().union(*(by_name[each] for each in by_name if without_arguments(each) == name))
        assert found - instances == by_name[name] - instances, name
        assert found >= by_name[name]
    assert len(own) > 10


@pytest.mark.parametrize(
    ("program_of", "name", "functions"),
    [
        ("c++", "mysql_parse", ["mysql_parse(void*, char*, unsigned int)"]),
        ("c++", "mysql_parse(void *, char *, unsigned int)", ["mysql_parse(void*, char*, unsigned int)"]),
        ("c++", "freefn", ["freefn(void*)"]),
        ("c++", "hidden", ["hidden(int)"]),
        ("c++", "twice", ["twice(int)", "twice(std::"]),
        ("c++", "twice(int)", ["twice(int)"]),
        ("c++", "plain", ["plain"]),  # a symbol of this name goes before functions with the name in the source
        ("c++", "plain(long)", ["plain(long)"]),
        ("c++", "plain(int)", ["plain"]),  # the symbol of a function of C has no parameters
        ("c++", "thrice", ["int thrice<int>(int)", "long thrice<long>(long)"]),
        ("c++", "thrice<int>", ["int thrice<int>(int)"]),
        ("c++", "same", ["decltype(auto) same<int>(int)"]),
        ("c++", "chosen", ["int (*chosen<4>(int))(int)"]),
        ("c++", 'operator"" _km', ['operator"" _km(unsigned long long)']),
        ("c++", "shop::Cart::operator+=", ["shop::Cart::operator+=(int)"]),
        ("c++", "shop::Cart::operator<", ["shop::Cart::operator<(shop::Cart const&) const"]),
        ("c++", "shop::Cart::operator()", ["shop::Cart::operator()(int)"]),
        ("c++", "shop::Cart::operator new", ["shop::Cart::operator new(unsigned long)"]),
        ("c++", "shop::Cart::operator std::function<int (int)>", ["shop::Cart::operator std::function<int (int)>()"]),
        ("c++", "shop::Cart::~Cart", ["shop::Cart::~Cart()@0x", "shop::Cart::~Cart()@0x"]),
        ("c++", "shop::(anonymous namespace)::inner", ["shop::(anonymous namespace)::inner(int)"]),
        ("c++", "shop::Box::put", ["long shop::Box<", "std::"]),
        ("c++", "main::'lambda0'(int)::operator()", ["main::'lambda0'(int)::operator()(int) const"]),
        ("rust", "names::double", ["names::double"]),
        ("rust-v0", "names::double", ["names::double::<u32>", "names::double::<u64>"]),
        ("rust-v0", "names::double::<u64>", ["names::double::<u64>"]),
        ("rust", "<names::Shop as names::Sell>::sell", ["<names::Shop as names::Sell>::sell"]),
        ("rust-v0", "<u32 as names::Sell>::sell", ["<u32 as names::Sell>::sell"]),
        ("rust", "names::größe", ["names::größe"]),
        ("rust-v0", "names::größe", ["names::größe"]),
        ("rust", "names::depth::<impl names::Shop>::inner", ["names::depth::<impl names::Shop>::inner"]),
        ("go", "main.(*Shop).Sell", ["main.(*Shop).Sell"]),
        ("go", "main.Map", ["main.Map[go.shape.int"]),
        ("go", "main.größe", ["main.größe"]),
        ("c", "scalar", ["scalar."]),
        ("c", "constant(long const *, int)", ["constant.constprop.0"]),
        ("c", "whole", ["whole"]),
        ("c", "helper", ["helper@0x", "helper@0x"]),
        ("c-lto", "helper", ["helper.lto_priv.0", "helper.lto_priv.1"]),
    ],
)
def test_what_a_name_means(program, program_of, name, functions):
    path = program(program_of)
    with trace.Session() as session:
        places = pattern(session, f"{path}:{quoted(name)}").user_places
        assert len(places) == len(functions)
        for place, function in zip(sorted(places, key=lambda place: place.name), functions, strict=True):
            assert place.name.startswith(function)
            # The name that its events carry means this function alone.
            (again,) = pattern(session, f"{path}:{quoted(place.name)}").user_places
            assert again == place


def test_overloads_without_quotes(program):
    path = program("c++")
    for spec, count in (
        ("twice", 2),
        ("twice(int)", 1),
        ("mysql_parse(void *, char *, unsigned)", 0),
        ("mysql_parse(void *, char *, unsigned int)", 1),
        ("shop::Cart::add(int)", 1),
        ("plain(int n)", 1),
    ):
        parsed = parse_trace(f"p:{path}:{spec}")
        with trace.Session() as session:
            if not count:
                with pytest.raises(NotFoundError):
                    resolve(session, parsed.text, parsed.target)
                continue
            (resolved,) = resolve(session, parsed.text, parsed.target)
            assert len(resolved.places) == count


def test_names_that_only_look_like_patterns(program):
    """A wildcard in quotes is a character of the name; without quotes, it is a wildcard."""
    path = program("c")
    with trace.Session() as session:
        found = [place.name for place in pattern(session, f"{path}:star*").user_places]
        assert found == [place.name for place in pattern(session, f'{path}:"star*"').user_places] == ["star*"]
        assert len(pattern(session, f"{path}:helper*").places) == 3
        for missing in ('"helper*"', '"query?*"', '"query?x"'):
            with pytest.raises(NotFoundError, match="no function"):
                pattern(session, f"{path}:{missing}")
    assert exact("query?[x]") == "query[?][[]x]"


@pytest.mark.parametrize(
    ("program_of", "wanted", "near"),
    [
        ("c++", "mysql_pars", "mysql_parse"),
        ("c++", "add", "shop::Cart::add"),
        ("c++", "shop::Card::add", "shop::Cart::add"),
        ("c++", "innr", '"shop::(anonymous namespace)::inner"'),
        ("c++", "shop::Cart::add(long)", '"shop::Cart::add(int)"'),
        ("c++", "Cart", "shop::Cart::Cart"),
        ("c++", "_Z6freefnPi", "_Z6freefnPv"),
        ("rust", "<names::Shop as names::Sell>::sel", '"<names::Shop as names::Sell>::sell"'),
        ("rust-v0", "double", '"names::double::<u32>"'),
        ("go", "Sell", '"main.(*Shop).Sell"'),
        ("go", "main.(*Shop).Sel", '"main.(*Shop).Sell"'),
        ("c", "helpr", "helper"),
        ("c", "star**", '"star*"'),
    ],
)
def test_near_names(program, program_of, wanted, near):
    path = program(program_of)
    for spec in (f"{path}:{quoted(wanted)}", f"p:{path}:{quoted(wanted)}"):
        with trace.Session() as session, pytest.raises(NotFoundError, match="no function") as caught:
            pattern(session, spec)
        names = caught.value.message.partition("; near: ")[2]
        assert names.startswith(near)
        # What is suggested is accepted as it is written.
        suggested = re.findall(r'"[^"]*"|[^ ,"]+', names)
        assert 1 <= len(suggested) <= 3
        for name in suggested:
            with trace.Session() as session:
                assert pattern(session, f"p:{path}:{name}").places


def test_what_is_nowhere(program):
    for wanted in ("qqqqqq", "x", "", "::", "()", "\udcff", "*[", "a" * 3000):
        with trace.Session() as session, pytest.raises(UsdtkitError) as caught:
            pattern(session, f"p:{program('c++')}:{quoted(wanted)}")
        assert "near" not in caught.value.message


def test_a_name_of_which_only_the_cold_part_is_left(compile_c):
    part = ".type g{0},@function\\ng{0}: ret\\n.size g{0}, 1\\n"
    source = f'__asm__("{part.format(".isra.0.cold")}");\nint main(void) {{ return 0; }}\n'
    path = compile_c(source)
    with trace.Session() as session, pytest.raises(NotFoundError, match=r"left only g\.isra\.0\.cold") as caught:
        pattern(session, f"p:{path}:g")
    assert "callers" in caught.value.hint


def test_a_source_name_is_no_probe(program):
    """PROVIDER:PROBE is not looked for where a name has colons."""
    with trace.Session() as session:
        for spec in ("libstdc++.so.6:std::nothing", "libstdc++.so.6:std::nothing*"):
            with pytest.raises(NotFoundError, match="no function std::nothing"):
                pattern(session, spec)
            with pytest.raises(NotFoundError, match="no function std::nothing"):
                resolve(session, spec, parse_trace(spec).target)


@pytest.mark.parametrize("find", ["counting", "calls"])
def test_copies_beside_the_function_itself(program, find):
    """The name means the function itself, whose arguments are those of the source. A remark names the others."""
    path = program("c")
    with trace.Session() as session:
        getattr(Setup(session), find)(f"{path}:whole")
        (remark,) = session.remarks
        assert remark.startswith("not traced: copies of whole")
        assert remark.endswith("whole.part.0, whole.constprop.0.isra.1")
    for name in ("whole*", "whole.part.0", "scalar", "helper", "main"):
        with trace.Session() as session:
            getattr(Setup(session), find)(f"{path}:{name}")
            assert not session.remarks
