# Sourced by tools/run and tools/test: sets `python` to an interpreter that can make .venv.
# Python 3.11 to 3.13 are what constraints.txt was checked with, so they come first; each name is
# tried by running it, because a name on PATH may be a shim that leads nowhere.

can_run() { command -v "$1" >/dev/null 2>&1 && "$1" -I -c "$2" >/dev/null 2>&1; }

find_python() {
    known='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
    newer='import sys; sys.exit(sys.version_info[:2] < (3, 11))'
    for check in "import venv; from ensurepip import bootstrap; $known" "$known" "$newer"; do
        for name in ${CKPTLOG_PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
            if can_run "$name" "$check"; then
                python=$name
                return 0
            fi
        done
    done
    found="not found"
    command -v python3 >/dev/null 2>&1 && found=$(python3 -V 2>&1)
    echo "ckptlog needs Python 3.11 or newer; python3 here is: $found." >&2
    echo "Install one (Debian: apt-get install python3 python3-venv), or name one:" >&2
    echo "    CKPTLOG_PYTHON=/path/to/python3.11 $0" >&2
    return 1
}

root=$(cd -- "$(dirname -- "$0")/.." && pwd -P)
find_python || exit 1
